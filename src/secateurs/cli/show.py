"""What the terminal shows: tables and progress, on standard error where they are not results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from secateurs.measure.human import duration
from secateurs.measure.latency import Latency, Speedup
from secateurs.measure.report import Report
from secateurs.measure.table import COLUMNS, cells
from secateurs.recovery.history import Tick
from secateurs.runs.job import Say

_NUMERIC = (*"0123456789-", "")
_NAME = 24
"""Letters that a name in the first column may have and still be kept whole."""

out = Console()
err = Console(stderr=True)


def table(columns: Sequence[str], lines: Sequence[tuple[str, ...]], *, title: str = "") -> None:
    """Print lines under column names; columns of numbers are right-aligned.

    Where the terminal is narrow, short names in the first column stay on one line.
    """
    grid = Table(title=title or None, title_justify="left", header_style="bold")
    short = max((len(line[0]) for line in lines), default=0) <= _NAME
    for i, column in enumerate(columns):
        numeric = i > 0 and all(line[i][:1] in _NUMERIC for line in lines)
        grid.add_column(
            column,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=short and i == 0,
        )
    for line in lines:
        grid.add_row(*map(escape, line))
    out.print(grid)


def results(report: Report) -> None:
    """Print a report's rows, proofs and notes."""
    # A model is a column and a change its own line, so that a few fit a narrow terminal.
    first, *facts = zip(COLUMNS, *cells(report.rows), strict=True)
    known = [fact for fact in facts if set(fact[1:]) != {"-"}]
    lines = [tuple(cell.replace(" (", "\n(") for cell in fact) for fact in known]
    table(first, lines, title=report.title)
    for proof in report.proofs:
        held = proof.verdict if proof.holds else "FAILS"
        out.print(f"Proof {held}: {proof.claim}: {proof.measured}.")
    for note in report.notes:
        out.print(f"- {note}", markup=False)


def timings(timed: Mapping[str, tuple[Latency, Speedup]]) -> None:
    """Print latencies taken side by side, and how each model compares with the first."""
    first = next(iter(timed))
    lines = [
        (
            label,
            duration(t.median_s),
            f"{duration(t.low_s)} to {duration(t.high_s)}",
            "-" if label == first else faster.verdict,
        )
        for label, (t, faster) in timed.items()
    ]
    table(("model", "median", "quartiles", f"against {first}"), lines)
    t, _ = timed[first]
    out.print(f"{t.batch} images at once on {t.threads} threads, interleaved.", highlight=False)


@contextmanager
def saying(out: Path, again: str = " with --resume") -> Iterator[Say]:
    """Show lines and training progress with the time left until the block ends.

    Args:
        out: the folder that fills, and keeps what is done when the user interrupts.
        again: how the same command then goes on.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )
    try:
        with bars:
            yield Say(
                line=lambda line: err.print(line, markup=False, highlight=False),
                progress=lambda name: _bar(bars, name),
            )
    except KeyboardInterrupt:
        err.print(f"interrupted; the same command{again} goes on in {out}", markup=False)
        raise typer.Exit(130) from None


def waiting(what: str) -> AbstractContextManager[object]:
    """Show that something without steps is going on until the block ends."""
    return err.status(f"{what} ...")


def _bar(bars: Progress, name: str) -> Callable[[Tick], None]:
    task: list[TaskID] = []

    def tick(t: Tick) -> None:
        steps = t.steps or 0
        if not task:
            task.append(bars.add_task(name, total=steps * t.epochs or None, loss=""))
        bars.update(
            task[0],
            description=f"{name} epoch {t.epoch}/{t.epochs}",
            completed=(t.epoch - 1) * steps + t.step,
            loss=f"loss {t.loss:.3f}",
        )

    return tick
