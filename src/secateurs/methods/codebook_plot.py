"""The picture of weight sharing: a layer's weights, and its values before and after tuning."""

import io
from collections.abc import Mapping
from math import nan

import torch
from torch import Tensor

from secateurs.methods.sensitivity_plot import STYLE
from secateurs.realise.coding.shared import Shared

BINS = 60


def draw(
    weights: Mapping[str, Tensor], before: Mapping[str, Shared], after: Mapping[str, Shared]
) -> str:
    """Draw a histogram of the weights that were kept, and the values of both codebooks, as SVG.

    Source: Han, Mao & Dally 2016, arXiv:1510.00149, figure 6.

    Args:
        weights: of each layer, as they were before they shared values; zeros are cut.
        before, after: tables of the same names; values that no weight uses are left out.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(after)))
    rows = max(1, -(-len(after) // columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.4 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for plot, name in zip(grid, after, strict=False):
            kept = weights[name].detach().flatten()
            kept = kept[kept != 0].float().cpu()
            plot.hist(kept.numpy(), BINS, color="#c9cfc4", histtype="stepfilled")
            top = plot.get_ylim()[1]
            for table, colour, low, label in (
                (before[name], "#3b6ea8", -0.09, "values before tuning"),
                (after[name], "#c8553d", -0.19, "after"),
            ):
                # One line with gaps: hundreds of ticks would make the file large.
                x = [v for value in used(table) for v in (value, value, nan)]
                y = [low * top, (low + 0.08) * top, nan] * (len(x) // 3)
                plot.plot(x, y, color=colour, lw=0.9, label=label)
            plot.set_title(name, loc="left", size=9)
            plot.set_ylim(-0.21 * top, top)
            plot.set_yticks([])
        for plot in grid[len(after) :]:
            plot.set_axis_off()
        if len(after):
            figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    return drawn.getvalue()


def used(table: Shared) -> list[float]:
    """Return the values that some weight has, going up."""
    index = table.index[table.index >= 0].long()
    seen = torch.bincount(index, minlength=table.codebook.numel()) > 0
    return sorted(table.codebook.detach()[seen].tolist())
