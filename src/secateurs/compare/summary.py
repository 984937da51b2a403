"""Points over seeds become curves, and curves become a table, CSV and text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from secateurs.compare.cell import Point
from secateurs.compare.grid import Phase
from secateurs.compare.storage import Stored
from secateurs.measure.human import count, percent, size
from secateurs.measure.table import aligned


@dataclass(frozen=True)
class Mark:
    """One place on a curve, over seeds."""

    arm: str
    phase: Phase
    density: float
    """As achieved, of the weights of the layers that were cut."""
    errors: tuple[float, ...]
    """One for each seed, fractions of the test images."""
    kept: int
    stored: Stored | None = None
    """Mean over the seeds; None where the arm has no grain to store by."""

    @property
    def error(self) -> float:
        """Mean over the seeds."""
        return mean(self.errors)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one seed."""
        return stdev(self.errors) if len(self.errors) > 1 else 0.0


def marks(points: Iterable[Point], sizes: Mapping[Point, Stored]) -> list[Mark]:
    """Gather the points of all seeds: one mark an arm, phase and density, in their order."""
    groups: dict[tuple[str, Phase, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.arm, point.phase, point.density), []).append(point)
    return [
        Mark(
            arm,
            phase,
            mean(p.achieved for p in group),
            tuple(p.error for p in group),
            round(mean(p.kept for p in group)),
            _mean([sizes[p] for p in group if p in sizes]),
        )
        for (arm, phase, _), group in groups.items()
    ]


def _mean(found: Sequence[Stored]) -> Stored | None:
    if not found:
        return None
    n = len(found)
    total = sum(found[1:], found[0])
    return Stored(
        total.dense // n, total.formula / n, total.grains // n, round(total.container / n)
    )


HEADER = ("arm", "training", "density", "weights", "test error", "formula", "grains", "container")
"""Columns of `table`."""


def table(found: Sequence[Mark]) -> str:
    """Return a markdown table, one line a mark."""
    return aligned([HEADER, *(cells(mark) for mark in found)])


def cells(mark: Mark) -> tuple[str, ...]:
    """Return one mark as texts, by `HEADER`."""
    stored = mark.stored
    sizes = (stored.formula, stored.grains, stored.container) if stored else (None,) * 3
    return (
        mark.arm,
        "none" if mark.phase == "cut" else "after each cut",
        percent(mark.density, 1),
        count(mark.kept),
        error_of(mark),
        *map(size, sizes),
    )


def error_of(mark: Mark) -> str:
    """Return the mean error with its standard deviation over seeds, as text."""
    if len(mark.errors) == 1:
        return percent(mark.error)
    return f"{100 * mark.error:.2f} ± {percent(mark.spread)}"


def grid_table(found: Sequence[Mark], phase: Phase) -> str:
    """Return a markdown table of mean errors in percent: densities down, arms across."""
    arms = list(dict.fromkeys(m.arm for m in found if m.phase == phase))
    rows: dict[str, dict[str, str]] = {}
    for m in found:
        if m.phase == phase:
            rows.setdefault(f"{100 * m.density:.3g} %", {})[m.arm] = error_of(m)
    lines = [(density, *(cells.get(arm, "") for arm in arms)) for density, cells in rows.items()]
    return aligned([("density", *arms), *lines])


def csv(points: Sequence[Point], sizes: Mapping[Point, Stored]) -> str:
    """Return every point as a line of comma-separated values; errors are fractions."""
    names = (
        "arm,phase,seed,density,kept,total,error_cut,error,tested,dense,formula,grains,container"
    )
    lines = [names]
    for p in points:
        s = sizes.get(p)
        stored = (s.dense, round(s.formula), s.grains, s.container) if s else ("",) * 4
        cells = (p.arm, p.phase, p.seed, p.density, p.kept, p.total)
        errors = (round(p.error_cut, 6), round(p.error, 6), p.tested)
        lines.append(",".join(map(str, (*cells, *errors, *stored))))
    return "\n".join(lines) + "\n"
