"""The curves of a comparison: accuracy against sparsity and against bytes, one colour an arm."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from secateurs.compare.summary import Mark
from secateurs.measure.human import round_mark, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2e7d4f", "#d07a21", "#2f6db3", "#8a4fae", "#b83a5e", "#5d6b2f", "#3b8a8c", "#7a5a46")
_INK, _MUTED, _LINE = "#1c1f1b", "#62685f", "#dfe2da"

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "secateurs",
    "font.size": 10,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": _INK,
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
    "legend.frameon": False,
}


def curves(found: Sequence[Mark], dense_error: float) -> str:
    """Draw the marks as one SVG: cut alone, with training, and with training against bytes.

    Lines join means over seeds, bars are one standard deviation; the grey line is dense.
    """
    import matplotlib
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(mark.arm for mark in found))
    trained = [mark for mark in found if mark.phase == "recovered"]
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11.5, 3.7), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        _panel(first, [m for m in found if m.phase == "cut"], arms, dense_error, bytes_=False)
        first.set_title("cut once, no training", loc="left", size=10)
        _panel(second, trained, arms, dense_error, bytes_=False)
        second.set_title("cut and trained in turn", loc="left", size=10)
        _panel(third, [m for m in trained if m.stored], arms, dense_error, bytes_=True)
        third.set_title("the same, against bytes", loc="left", size=10)
        first.set_ylabel("test accuracy, %")
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    svg = drawn.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)


def _panel(
    plot: "Axes", found: Sequence[Mark], arms: Sequence[str], dense_error: float, *, bytes_: bool
) -> None:
    from matplotlib.ticker import FuncFormatter

    plot.axhline(100 * (1 - dense_error), color=_MUTED, lw=1, ls=":", label="dense")
    for i, arm in enumerate(arms):
        mine = [mark for mark in found if mark.arm == arm]
        if not mine:
            continue
        x = [_bytes(m) if bytes_ else 100 * (1 - m.density) for m in mine]
        plot.errorbar(
            x,
            [100 * (1 - m.error) for m in mine],
            yerr=[100 * m.spread for m in mine],
            label=arm,
            color=COLOURS[i % len(COLOURS)],
            ls="-" if i < len(COLOURS) and not arm.startswith("random") else "--",
            marker="o",
            ms=4,
            lw=1.6,
            elinewidth=1.2,
        )
    plot.grid(axis="both")
    if bytes_:
        plot.set_xscale("log")
        plot.invert_xaxis()
        plot.set_xlabel("bytes of the cut layers, 8-bit weights and 4-bit indices")
        words = FuncFormatter(lambda at, _: round_mark(size(at)))
        plot.xaxis.set_major_formatter(words)
        plot.xaxis.set_minor_formatter(words)
        plot.tick_params(axis="x", which="minor", labelsize=7)
    else:
        plot.set_xlabel("sparsity of the cut layers, %")


def _bytes(mark: Mark) -> float:
    assert mark.stored is not None
    return float(mark.stored.grains)
