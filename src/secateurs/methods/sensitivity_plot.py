"""The picture of a sensitivity scan: accuracy as each layer alone is pruned."""

import io
from collections.abc import Mapping
from typing import Any

from secateurs.methods.sensitivity import Curve

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "secateurs",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dfe2da",
    "legend.frameon": False,
    "text.parse_math": False,
}


def draw(curves: Mapping[str, Curve]) -> str:
    """Draw one line a layer, accuracy over the density of that layer, as SVG.

    Source: Han et al. 2015, arXiv:1506.02626, figure 6.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        plot = figure.subplots()
        colours = matplotlib.colormaps["viridis"]
        for i, (name, curve) in enumerate(curves.items()):
            colour = colours(i / max(1, len(curves) - 1) * 0.9)
            x, y = ([100 * v for v in values] for values in (curve.densities, curve.accuracies))
            plot.plot(x, y, color=colour, marker="o", ms=3, label=name)
        plot.set_xscale("log")
        plot.invert_xaxis()
        percent = FuncFormatter(lambda x, _: f"{x:g}")
        plot.xaxis.set_major_formatter(percent)
        plot.set_xlabel("weights kept of this layer alone, %")
        plot.set_ylabel("accuracy, nothing retrained, %")
        plot.grid(axis="both")
        if len(curves) <= 24:
            plot.legend(fontsize=8)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    return drawn.getvalue()
