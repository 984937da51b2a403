"""The pictures of a report, as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from secateurs.measure.human import count, duration, percent, round_mark, size
from secateurs.measure.perlayer import LayerRow
from secateurs.measure.report import Curve, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 6
"""How many colours a page defines, `--series-0` to `--series-5`; the first is the base."""

# Stand-ins that matplotlib can draw with; the page's variables take their place.
_INK, _MUTED, _LINE, _PAPER = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line", _PAPER: "--paper"}
_VARIABLES |= {f"#0a0b{i:02x}": f"--series-{i}" for i in range(SERIES)}


def trade_offs(rows: Sequence[Row]) -> str:
    """Draw test accuracy against file size, MACs and non-zeros; "" when too little is known."""
    axes: list[tuple[str, Callable[[Row], float | None], Callable[[float | None], str]]] = [
        ("size of the file", lambda r: r.file_bytes, size),
        ("MACs of one example", lambda r: r.macs, count),
        ("non-zero parameters", lambda r: r.nonzeros, count),
    ]
    shown = [a for a in axes if sum(r.test is not None and bool(a[1](r)) for r in rows) > 1]
    if not shown:
        return ""
    with _figure(9.6, 3.1) as (figure, finish):
        grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for plot, (title, cost, words) in zip(grid, shown, strict=True):
            for i, row in enumerate(rows):
                x = cost(row)
                if row.test and x:
                    plot.errorbar(
                        x,
                        100 * row.test.value,
                        yerr=100 * row.test.standard_error,
                        fmt="o",
                        ms=8,
                        color=_series(i),
                        ecolor=_series(i),
                        elinewidth=1.4,
                        capsize=0,
                    )
            _cost_axis(plot, title, words)
        grid[0].set_ylabel("test accuracy, %", color=_MUTED)
    return finish("Test accuracy against cost, one point per model")


def latencies(rows: Sequence[Row]) -> str:
    """Draw the median latency of each model with its quartiles; "" when none was timed."""
    timed = [(i, row, row.latency) for i, row in enumerate(rows) if row.latency]
    if not timed:
        return ""
    with _figure(9.6, 0.7 + 0.42 * len(timed)) as (figure, finish):
        plot = figure.subplots()
        for y, (i, _, t) in enumerate(timed):
            plot.barh(y, t.median_s, height=0.56, color=_series(i))
            plot.plot([t.low_s, t.high_s], [y, y], color=_INK, lw=2, solid_capstyle="butt")
            beside: dict[str, Any] = {
                "xytext": (6, 0),
                "textcoords": "offset points",
                "va": "center",
            }
            plot.annotate(duration(t.median_s), (t.high_s, y), color=_INK, size=9, **beside)
        plot.set_yticks(range(len(timed)), [_short(row.label) for _, row, _ in timed])
        plot.invert_yaxis()
        plot.set_xlim(0, 1.15 * max(t.high_s for _, _, t in timed))
        _bare(plot, duration)
    return finish("Latency of each model: median as a bar, quartiles as a line")


def thinned(layers: Sequence[LayerRow], labels: Sequence[str]) -> list[str]:
    """List the models, in the order of `labels`, of which some layer lost weights."""
    whole = _whole(layers, labels)
    return [
        label
        for label in labels
        if any(r.model == label and r.nonzeros < whole.get(r.name, r.weights) for r in layers)
    ]


def _whole(layers: Sequence[LayerRow], labels: Sequence[str]) -> dict[str, int]:
    """Count each layer's weights in the first model, where that is among the rows."""
    return {r.name: r.weights for r in layers if labels and r.model == labels[0]}


def densities(layers: Sequence[LayerRow], labels: Sequence[str]) -> str:
    """Draw what is left of each layer of the first model, per pruned model; "" when all is.

    Where the first model's layers are missing, each layer is compared with itself whole.
    `labels` are those of the rows; they settle the colours.
    """
    models = thinned(layers, labels)
    whole = _whole(layers, labels)
    names = list(dict.fromkeys(r.name for r in layers if r.model in models))
    if not names:
        return ""
    density = {(r.model, r.name): r.nonzeros / whole.get(r.name, r.weights) for r in layers}
    thick = 0.8 / len(models)
    with _figure(9.6, 0.7 + len(names) * max(0.2, 0.13 * len(models) + 0.08)) as (figure, finish):
        plot = figure.subplots()
        for m, model in enumerate(models):
            at = [y + (m - (len(models) - 1) / 2) * thick for y in range(len(names))]
            left = [density.get((model, name), 0.0) for name in names]
            plot.barh(at, left, height=0.86 * thick, color=_series(labels.index(model)))
        plot.set_yticks(range(len(names)), [_short(name) for name in names])
        plot.set_ylim(len(names) - 0.4, -0.6)
        plot.set_xlim(0, 1)
        _bare(plot, lambda x: percent(x, 0))
    return finish("Fraction of the weights that is left, per layer")


def training(curves: Sequence[Curve], labels: Sequence[str]) -> str:
    """Draw loss and accuracy over the epochs of each run; "" when there are none.

    `labels` are those of the rows; they settle the colours.
    """
    known = [curve for curve in curves if curve.points]
    if not known:
        return ""
    with _figure(9.6, 3.0) as (figure, finish):
        left, right = figure.subplots(1, 2)
        for i, curve in enumerate(known):
            at = labels.index(curve.label) if curve.label in labels else i
            style: dict[str, Any] = {"color": _series(at), "lw": 1.8, "marker": "o", "ms": 3}
            _line(left, curve, "loss", 1, style)
            watched = any(p.get("valid_accuracy") is not None for p in curve.points)
            _line(right, curve, "valid_accuracy" if watched else "accuracy", 100, style)
        for plot, title in ((left, "training loss"), (right, "validation accuracy, %")):
            plot.set_title(title, loc="left", color=_MUTED, size=10)
            plot.set_xlabel("epoch", color=_MUTED)
            plot.grid(axis="y")
            plot.xaxis.get_major_locator().set_params(integer=True)
    return finish("Training loss and validation accuracy over the epochs")


def _line(plot: "Axes", curve: Curve, key: str, scale: float, style: dict[str, Any]) -> None:
    points = [(p.get("epoch"), p.get(key)) for p in curve.points]
    known = [(x, scale * y) for x, y in points if x is not None and y is not None]
    plot.plot([x for x, _ in known], [y for _, y in known], **style)


def _cost_axis(plot: "Axes", title: str, words: Callable[[float | None], str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    plot.set_title(title, loc="left", color=_MUTED, size=10)
    plot.set_xlim(left=-0.04 * plot.get_xlim()[1])  # room for a point near zero
    plot.xaxis.set_major_locator(MaxNLocator(4))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda x, _: round_mark(words(x)) if x else "0"))
    plot.grid(axis="both")
    plot.margins(y=0.15)


def _bare(plot: "Axes", words: Callable[[float], str]) -> None:
    from matplotlib.ticker import FuncFormatter

    plot.spines["left"].set_visible(False)
    plot.tick_params(axis="y", length=0, labelcolor=_INK)
    plot.xaxis.set_major_formatter(FuncFormatter(lambda x, _: round_mark(words(x)) if x else "0"))
    plot.grid(axis="x")


def _series(i: int) -> str:
    """Return the colour of row i; the base keeps its own, the others take turns."""
    return f"#0a0b{(i if i < SERIES else 1 + (i - 1) % (SERIES - 1)):02x}"


def _short(name: str, longest: int = 34) -> str:
    return name if len(name) <= longest else "…" + name[1 - longest :]


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", Callable[[str], str]]]:
    """Yield an empty figure, and what turns it into SVG for a page, given a description."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        style: Any = _STYLE
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = io.StringIO()
        yield figure, lambda about: embed(drawn.getvalue(), about)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)


def embed(svg: str, about: str) -> str:
    """Cut the prolog off, name the picture and hand the colours over to the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(about)}"', 1)


_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "secateurs",  # the same report gives the same bytes
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
}
