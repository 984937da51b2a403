"""The command that reads packed files."""

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save_file

from secateurs.cli import show
from secateurs.core.errors import FileError
from secateurs.measure.human import size
from secateurs.realise.coding.container import read
from secateurs.realise.coding.ledger import ledger

PARTS = ("values", "indices", "tables", "header", "other")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .secz file of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the tensors as .safetensors, zeros included.")
    ] = None,
) -> None:
    """Say where every byte of a packed model went, and write its tensors out again.

    Example: `secateurs unpack demo-run/magnitude-element.secz --out weights.safetensors`
    """
    if out is not None and (out.exists() or not out.parent.is_dir()):
        why = "is there already" if out.exists() else "lies in no folder that exists"
        raise FileError(f"{str(out)!r} {why}; choose another --out")
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
    if out is not None:
        state = {name: t.clone().contiguous() for name, t in contents.state().items()}
        partial = out.with_name(f".{out.name}.part")
        save_file(state, partial)
        partial.replace(out)
        show.out.print(f"Tensors: {out}", highlight=False)
