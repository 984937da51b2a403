"""One cell of a comparison: prune, test, recover, test again; done once, read back after."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from secateurs.compare.grid import Cell, Grid, Phase
from secateurs.core.errors import FileError
from secateurs.measure.accuracy import Batches, evaluate
from secateurs.measure.report import write_whole
from secateurs.methods.table import method
from secateurs.methods.task import Task, Train
from secateurs.realise.checkpoint import save_checkpoint
from secateurs.runs.folder import open_folder
from secateurs.runs.job import CALIBRATION_BATCHES
from secateurs.runs.prepare import Job, prepare
from secateurs.runs.recipe import dumps, stamped
from secateurs.runs.stages import Recovery, Stages

MODEL = "model"
"""Stem of the file that holds a cell's model, its masked weights as zeros."""


@dataclass(frozen=True)
class Point:
    """What one cell gave. Errors are fractions of the test images."""

    arm: str
    phase: Phase
    seed: int
    density: float
    """As asked for."""
    kept: int
    total: int
    """Weights of the layers that were cut."""
    error_cut: float
    """After the last cut and before training."""
    error: float
    tested: int

    @property
    def achieved(self) -> float:
        """Fraction of the cut layers' weights that stayed."""
        return self.kept / self.total


def run_cell(grid: Grid, cell: Cell, out: Path) -> Point:
    """Return a cell's point: read from its folder, or made there.

    Killed at any moment it loses at most one epoch and goes on when called again.
    """
    folder = out / cell.path
    if (folder / "point.json").exists():
        return read_point(folder)
    start = (out / cell.before.path / MODEL) if cell.before else dense_folder(out, cell) / "dense"
    recipe = stamped(grid.recipe(cell, start.with_suffix(".safetensors")), version("secateurs"))
    job = prepare(recipe)
    open_folder(folder, recipe, resume=(folder / "recipe.json").exists())
    point = _made(job, cell, folder)
    write_whole(folder / "point.json", dumps(asdict(point)))
    return point


def dense_folder(out: Path, cell: Cell) -> Path:
    """Return where the dense model of a cell's seed is."""
    return out / f"seed-{cell.seed}" / "dense"


def read_point(folder: Path) -> Point:
    """Read a finished cell.

    Raises:
        FileError: the file is damaged.
    """
    place = folder / "point.json"
    try:
        return Point(**json.loads(place.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"cannot read {str(place)!r}: {error}; remove it and run again") from error


def _made(job: Job, cell: Cell, folder: Path) -> Point:
    assert job.data.test is not None, "prepare() has checked"
    (cut,) = job.recipe.cuts
    stages = Stages(job.data, folder / "stages")
    tested = _Tested(job.data.test, Recovery(stages, cut.label, cut.recover))
    task = Task(
        model=job.model,
        example=job.example,
        train=tested if cut.recover.epochs else None,
        batches=lambda: job.batches(CALIBRATION_BATCHES),
        steps=len(job.data.train) * cut.recover.epochs,
        folder=folder,
        seed=cell.seed,
    )
    pruned = method(cut.method, cut.options)(task, cut.target, **cut.options)
    save_checkpoint(folder / MODEL, pruned.model, spec=job.recipe.model)
    found = evaluate(pruned.model, job.data.test)
    error = 1 - found.value
    return Point(
        arm=cell.arm.name,
        phase=cell.phase,
        seed=cell.seed,
        density=cell.density,
        kept=pruned.mask.kept,
        total=pruned.mask.total,
        error_cut=tested.errors[-1] if tested.errors else error,
        error=error,
        tested=found.total,
    )


@dataclass
class _Tested:
    """A `Train` that tests the model before it trains it."""

    test: Batches
    train: Train

    def __post_init__(self) -> None:
        self.errors: list[float] = []

    def __call__(
        self,
        model: nn.Module,
        *,
        name: str,
        epochs: int | None = None,
        after_step: Callable[[int], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        self.errors.append(1 - evaluate(model, self.test).value)
        self.train(model, name=name, epochs=epochs, after_step=after_step, penalty=penalty)
