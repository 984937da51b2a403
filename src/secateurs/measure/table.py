"""The rows of a report as text."""

from collections.abc import Iterable, Sequence

from secateurs.measure.human import count, duration, less, percent, points, size
from secateurs.measure.report import Report, Row

COLUMNS = (
    "model",
    "parameters",
    "non-zero",
    "MACs",
    "file",
    "packed",
    "latency",
    "speed",
    "test accuracy",
)


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return one tuple of strings per row, by `COLUMNS`; ratios are against the first row.

    Files and compute shrink "x less"; speed is the verdict of paired timing, never a ratio
    of sizes.
    """
    return [_cells(row, rows[0]) for row in rows]


def markdown(report: Report) -> str:
    """Return the rows as an aligned markdown table, which also reads well as plain text."""
    return aligned([COLUMNS, *cells(report.rows)])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a markdown table of these lines, the first of which is the header.

    >>> print(aligned([("a", "size"), ("net", "3")]))
    | a   | size |
    | :-- | ---: |
    | net |    3 |
    """
    escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(escaped[0]))]

    def row(texts: Iterable[str]) -> str:
        first, *others = texts
        padded = [first.ljust(widths[0])]
        padded += [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([row(escaped[0]), row(rule), *map(row, escaped[1:])])


def _cells(row: Row, base: Row) -> tuple[str, ...]:
    def joined(value: str, change: str) -> str:
        return f"{value} ({change})" if change and row is not base else value

    accuracy = "-"
    if row.test:
        was = base.test.value if base.test else None
        spread = f"{percent(row.test.value)[:-2]} ± {percent(row.test.standard_error)}"
        accuracy = joined(spread, points(was, row.test.value))
    return (
        row.label,
        joined(count(row.parameters), less(base.parameters, row.parameters)),
        joined(count(row.nonzeros), less(base.nonzeros, row.nonzeros)),
        joined(count(row.macs), less(base.macs, row.macs)),
        joined(size(row.file_bytes), less(base.file_bytes, row.file_bytes)),
        joined(size(row.packed_bytes), less(base.file_bytes, row.packed_bytes)),
        spread_of(row),
        row.speedup.verdict if row.speedup and row is not base else "-",
        accuracy,
    )


def spread_of(row: Row) -> str:
    """Return median and quartiles of a row's latency as text."""
    timed = row.latency
    if timed is None:
        return "-"
    return f"{duration(timed.median_s)} ({duration(timed.low_s)} to {duration(timed.high_s)})"
