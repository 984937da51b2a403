"""The command that compares ways to prune, over densities and seeds."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from secateurs.cli import show
from secateurs.compare.grid import Arm, Grid
from secateurs.compare.page import HTML, write_report
from secateurs.compare.run import claim, points
from secateurs.compare.summary import HEADER, cells
from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.layers import layers
from secateurs.methods.table import METHODS, options_of
from secateurs.models.create import create
from secateurs.recovery.settings import FINETUNE, Trainer

GRAINS = ("element", "row", "kernel", "filter")

_KINDS = ("granularity", "method")


def compare(
    what: Annotated[str, typer.Argument(help="granularity or method.")],
    model: Annotated[str, typer.Argument(help="As for `secateurs prune`.")],
    data: Annotated[str, typer.Option("--data", help="digits, mnist, cifar10 or folder:PATH.")],
    out: Annotated[Path, typer.Option("--out", help="A folder; run again, it goes on.")],
    names: Annotated[
        str | None, typer.Option("--names", help="Which ones, separated by commas.")
    ] = None,
    densities: Annotated[str, typer.Option(help="Fractions of units to keep.")] = "0.5,0.2,0.1",
    seeds: Annotated[str, typer.Option(help="Of data, training and initial weights.")] = "0",
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Patterns of weights left whole; linear layers if left out."),
    ] = None,
    control: Annotated[bool, typer.Option(help="Also cut at random, without training.")] = True,
    dense_epochs: Annotated[int, typer.Option(min=1, help="Training of the dense model.")] = 10,
    dense_lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 0.05,
    epochs: Annotated[int, typer.Option(min=0, help="Training after each cut.")] = 1,
    lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = FINETUNE.lr,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a training step.")] = 64,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where data sets live.", envvar="SECATEURS_DATA")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to train and cut; the CPU when left out.")
    ] = None,
) -> None:
    """Compare granularities, or methods, by error against density and bytes over seeds.

    Every cell is a job in a folder of its own; what is done is not done again.

    Example: `secateurs compare granularity lenet5 --data mnist --densities 0.5,0.2,0.1,0.05
    --seeds 0,1,2 --out runs/regularity`
    """
    if what not in _KINDS:
        raise UnknownNameError(f"cannot compare {what!r}; use one of {', '.join(_KINDS)}")
    left = tuple(exclude) if exclude is not None else linear(model)
    arms = granularities(_words(names, GRAINS), left, epochs, control)
    if what == "method":
        arms = methods(_words(names, tuple(METHODS)), left, epochs)
    grid = Grid(
        model,
        data,
        arms,
        _numbers(densities, float, "--densities", "0.5,0.2"),
        _numbers(seeds, int, "--seeds", "0,1,2"),
        Trainer(epochs=dense_epochs, lr=dense_lr, schedule="one_cycle", nesterov=False),
        replace(FINETUNE, epochs=epochs, lr=lr, nesterov=False),
        None if data_dir is None else str(data_dir),
        batch_size,
        device=device,
    )
    claim(grid, out)
    with show.saying(out, again="") as say:
        done = list(points(grid, out, say=say))
    found = write_report(grid, done, out)
    show.table(HEADER, [cells(mark) for mark in found], title=f"{model} on {data}")
    show.out.print(f"Report: {out / HTML}", highlight=False)


def granularities(
    names: tuple[str, ...], exclude: tuple[str, ...], epochs: int, control: bool
) -> tuple[Arm, ...]:
    """Return magnitude pruning at every granularity and, as control, chance at the same."""
    chance = {"search": "best_of", "masks": 1, "rounds": 1}
    arms = [
        Arm(name, "magnitude", {"granularity": name, "exclude": exclude}, epochs > 0)
        for name in names
    ]
    if control:
        arms += [
            Arm(
                f"random {name}",
                "particles",
                {"granularity": name, "exclude": exclude, **chance},
                False,
            )
            for name in names
        ]
    return tuple(arms)


def methods(names: tuple[str, ...], exclude: tuple[str, ...], epochs: int) -> tuple[Arm, ...]:
    """Return methods with their own defaults, each excluding the same where it can."""
    arms = []
    for name in names:
        known = options_of(METHODS[name]) if name in METHODS else {}
        options: dict[str, Any] = {"exclude": exclude} if "exclude" in known else {}
        arms.append(Arm(name, name, options, epochs > 0))
    return tuple(arms)


def linear(model: str) -> tuple[str, ...]:
    """List the linear layers of a model that has convolutions: there all grains coincide."""
    found = layers(create(model))
    wide = [name for name, layer in found.items() if layer.kernel]
    return tuple(name for name in found if name not in wide) if wide else ()


def _words(given: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(None, given.split(","))) if given else default


def _numbers(given: str, kind: Any, option: str, example: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(word) for word in given.split(","))
    except ValueError:
        raise PruneError(
            f"{option} {given!r} are no numbers; write for example {option} {example}"
        ) from None
