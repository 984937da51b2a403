"""The commands that write and read packed files."""

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save

from secateurs.cli import show
from secateurs.cli.words import new_file
from secateurs.core.errors import FileError
from secateurs.core.whole import write_bytes
from secateurs.measure.human import size
from secateurs.methods.pack import Packed, skeleton
from secateurs.methods.pack import pack as packed
from secateurs.realise.coding.container import read
from secateurs.realise.coding.ledger import ledger
from secateurs.realise.coding.perlayer import HEAD, layer_cells
from secateurs.realise.packed import load
from secateurs.realise.state import read_state

PARTS = ("values", "indices", "tables", "header", "other")


def pack(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            help="The folder of a run; a state dict, .safetensors or .pt; a .secz.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .secz file to write.")],
    bits: Annotated[
        int, typer.Option(min=0, max=16, help="Of a weight, shared by k-means; 0 keeps all.")
    ] = 0,
    bytes: Annotated[int, typer.Option(min=0, help="Of the file, at most.")] = 0,
    ratio: Annotated[float, typer.Option(min=0, help="Dense bytes by those of the file.")] = 0.0,
    biases: Annotated[str, typer.Option(help="float32, float16 or levels.")] = "float32",
    code: Annotated[
        str, typer.Option(help="smallest that reads quickly; slow: smallest of all; paper.")
    ] = "smallest",
    model: Annotated[
        str | None, typer.Option(help="What builds a state dict's model: lenet5, torchvision:NAME.")
    ] = None,
) -> None:
    """Pack a pruned model into one file: lossless, or its weights as few values, untrained.

    Example: `secateurs pack runs/half --ratio 20 --out half.secz`
    """
    new_file(out)
    if source.is_dir():
        source = _only(source)
    how = Packed(bits, bytes, ratio, biases, code=code)  # type: ignore[arg-type]  # pack checks.
    if source.suffix == ".secz":
        recipe = read(source).recipe
        whole = load(source) if recipe.get("model") else skeleton(read(source).state())
        blob = packed(whole, how, recipe)
    else:
        whole = skeleton(read_state(source))
        blob = packed(whole, how, {"model": model} if model else {})
    write_bytes(out, blob)
    dense = sum(t.numel() * t.element_size() for t in whole.state_dict().values())
    _show_layers(out)
    show.out.print(f"{dense} bytes become {len(blob)}: {dense / len(blob):.1f} times fewer")


def _only(run: Path) -> Path:
    """Return the one packed file of a run."""
    found = sorted(run.glob("*.secz"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise FileError(f"{str(run)!r} holds {len(found)} packed models ({names}); name one file")
    return found[0]


def _show_layers(file: Path) -> None:
    lines = layer_cells(file.read_bytes())
    show.table(HEAD, lines, title=f"{file}: bits for each weight that stays, before and after")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .secz file of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the tensors as .safetensors, zeros included.")
    ] = None,
) -> None:
    """Say where every byte of a packed model went, and write its tensors out again.

    Example: `secateurs unpack demo-run/magnitude-element.secz --out weights.safetensors`
    """
    if out is not None:
        new_file(out)
    contents = read(file)
    lines = ledger(file.read_bytes())
    rows = [
        (
            line.name,
            f"{line.kept} of {line.weights}",
            size(line.dense),
            *(str(getattr(line, part)) for part in PARTS),
        )
        for line in lines
    ]
    total = sum(line.bytes for line in lines)
    show.table(("tensor", "weights kept", "dense", *PARTS), rows, title=f"{file}: {total} bytes")
    _show_layers(file)
    if out is not None:
        state = {name: t.clone().contiguous() for name, t in contents.state().items()}
        write_bytes(out, save(state))
        show.out.print(f"Tensors: {out}", highlight=False)
