"""Commands that make zeros faster: the sparse run time over a run, and into a file."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from secateurs.cli import show
from secateurs.cli.words import model_of, new_file, only
from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.measure.human import duration, percent, size
from secateurs.models.create import input_shape
from secateurs.realise.coding.container import read
from secateurs.realise.packed import load
from secateurs.realise.sparse.accelerate import Weights, weights_for
from secateurs.realise.sparse.accelerate import accelerate as accelerated
from secateurs.realise.sparse.accelerated import Accelerated
from secateurs.realise.sparse.choice import Choice
from secateurs.runs.again import accelerate_run, meant
from secateurs.runs.sparse import sentence
from secateurs.runs.speed import for_speed

HEAD = ("layer", "shape", "kept", "used", "filters", "sparse", "dense")
_SHARING = {0: "dense", 1: "alone", 2: "by 2", 4: "by 4"}
"""Filters that share positions, in a table's width."""
WEIGHTS_HELP = "float32; int8 also tries weights of 8 bits, where that is faster."


def accelerate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            help="The folder of a run; one of its models, RUN/LABEL.safetensors; a packed .secz.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .secz file to write.")],
    batch: Annotated[int, typer.Option(min=1, help="Images at once, always as many.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often the whole is timed.")] = 20,
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "float32",
) -> None:
    """Turn a pruned model into one that skips its zeros, where that was measured to be faster.

    Python reads the file with `secateurs.load_accelerated(FILE)`.

    Example: `secateurs accelerate demo-run/magnitude-element.safetensors --out fast.secz`
    """
    kind = weights_for(weights)
    new_file(out)
    if source.suffix == ".secz":
        with show.waiting(f"timing the layers of {source}"):
            fast = _packed(source, batch, threads, rounds, kind)
    else:
        folder, label = model_of(source)
        label = label or only(source, meant(folder))
        with show.waiting(f"timing the layers of {source}"):
            found = accelerate_run(
                folder, label=label, batch=batch, threads=threads, rounds=rounds, weights=kind
            )
        fast = found[label]
    _show(str(source), fast)
    show.out.print(f"{size(fast.save(out))}: {out}", highlight=False)


def bench_sparse(
    folder: Path, batch: int | None, threads: int, rounds: int, weights: str = "float32"
) -> None:
    """Print each pruned model's plan, and its whole dense time against its sparse one."""
    kind = weights_for(weights)
    with show.waiting(f"timing the layers of {folder}"):
        found = accelerate_run(folder, batch=batch, threads=threads, rounds=rounds, weights=kind)
    for label, fast in found.items():
        _show(label, fast)


def grain_for(aim: str | None, granularity: str, density: float | None, threads: int = 1) -> str:
    """Return what to cut, and say why where the aim is speed.

    Raises:
        UnknownNameError: no such aim.
        BudgetError: no density was given, which the choice depends on.
    """
    if aim is None:
        return granularity
    if aim != "speed":
        raise UnknownNameError(f"unknown aim {aim!r}; use --for speed, or leave it out")
    if density is None:
        raise BudgetError(
            "--for speed chooses what to cut at a density; pass --density, or --granularity "
            "out_channel with another target"
        )
    with show.waiting("timing a layer pruned each way"):
        found = for_speed(density, threads=threads)
    for line in found.why:
        show.out.print(line, markup=False, highlight=False)
    return found.granularity


def _packed(source: Path, batch: int, threads: int, rounds: int, weights: Weights) -> Accelerated:
    model = load(source)
    shape = input_shape(str(read(source).recipe["model"]))
    x = torch.randn(batch, *shape)
    return accelerated(model, x, threads=threads, rounds=rounds, weights=weights)


def _sharing(choice: Choice) -> str:
    return _SHARING[choice.together] + (" int8" if choice.bits == 8 else "")


def _show(title: str, fast: Accelerated) -> None:
    lines = [
        (
            line.param,
            "x".join(map(str, line.shape)),
            percent(line.chosen.density),
            percent(line.chosen.stored),
            _sharing(line.chosen.choice),
            duration(line.chosen.sparse_s),
            duration(line.chosen.dense_s),
        )
        for line in fast.plan
    ]
    show.table(HEAD, lines, title=title)
    told = sentence(fast)
    show.out.print(f"{told[0].upper()}{told[1:]}", markup=False, highlight=False)
    if fast.speedup.low <= 1:
        show.out.print("Not faster than dense on this machine.", highlight=False)
