"""Run a comparison, cell by cell; what is done already is read back."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from torch import nn

from secateurs.compare.cell import MODEL, Point, run_cell
from secateurs.compare.grid import Cell, Grid
from secateurs.core.errors import FileError
from secateurs.measure.report import Report, write_whole
from secateurs.realise.checkpoint import load_checkpoint
from secateurs.runs.job import SILENT, Say, run
from secateurs.runs.prepare import inputs, prepare
from secateurs.runs.recipe import dumps, stamped

GRID = "grid.json"


def points(grid: Grid, out: Path, *, say: Say = SILENT) -> Iterator[Point]:
    """Yield every cell's point; the curves without training, which are quick, come first.

    The folder holds one folder a cell, with its recipe, its model and `point.json`. Called
    again in the same way, after whatever happened, it goes on where it was.

    Raises:
        PruneError: of the kind that fits, such as a method that refuses a density.
    """
    for seed in grid.seeds:
        _dense(grid, seed, out, say)
        for cell in grid.cuts(seed):
            yield _told(grid, cell, out, say)
    for seed in grid.seeds:
        for cell in grid.chains(seed):
            yield _told(grid, cell, out, say)


def _dense(grid: Grid, seed: int, out: Path, say: Say) -> None:
    folder = out / f"seed-{seed}" / "dense"
    if not (folder / "report.json").exists():
        say.line(f"seed {seed}: dense {grid.model} on {grid.data}")
        recipe = stamped(grid.dense_recipe(seed), version("secateurs"))
        run(recipe, folder, resume=folder.exists(), say=say)


def _told(grid: Grid, cell: Cell, out: Path, say: Say) -> Point:
    say.line(f"seed {cell.seed}: {cell.arm.name}, {cell.phase}, density {cell.density:g}")
    return run_cell(grid, cell, out)


def claim(grid: Grid, out: Path) -> None:
    """Leave the grid in the folder; densities, seeds and arms may be added to it later.

    It may go on on another device, too.

    Raises:
        FileError: the folder holds something else, or a comparison that differs elsewhere.
        PruneError: of the kind that fits, such as data that the model does not take.
    """
    prepare(grid.dense_recipe(grid.seeds[0]))
    place, plain = out / GRID, json.loads(dumps(grid.to_json()))
    if place.exists():
        found = json.loads(place.read_text())
        fixed = [k for k in plain if k not in ("arms", "densities", "seeds", "device")]
        if other := [k for k in fixed if found.get(k) != plain[k]]:
            changes = "; ".join(f"{k} was {found.get(k)}, now {plain[k]}" for k in other)
            raise FileError(
                f"{str(out)!r} holds another comparison ({changes}); choose another --out"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileError(f"{str(out)!r} exists and holds no comparison; choose an empty folder")
    write_whole(place, dumps(plain))


def dense_error(out: Path, seed: int) -> float:
    """Return the fraction of test images that a seed's dense model gets wrong."""
    (row,) = Report.load(out / f"seed-{seed}" / "dense" / "report.json").rows
    assert row.test is not None, "a run always tests"
    return 1 - row.test.value


def plain_model(grid: Grid) -> nn.Module:
    """Build the model of a comparison, with any weights; see `cell_model`."""
    return inputs(replace(grid.dense_recipe(grid.seeds[0]), dense=None)).model


def cell_model(plain: nn.Module, grid: Grid, point: Point, out: Path) -> nn.Module:
    """Return a copy of `plain` with the weights of a finished cell, dropped ones as zeros.

    Raises:
        FileError: the cell's file is missing or damaged.
    """
    arm = next(arm for arm in grid.arms if arm.name == point.arm)
    folder = out / Cell(point.seed, arm, point.phase, point.density).path
    return load_checkpoint(folder / MODEL, plain)
