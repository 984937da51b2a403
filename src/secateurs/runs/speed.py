"""What to cut where speed is the aim: a typical layer, pruned each way and timed here."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from secateurs.core.cut import select
from secateurs.granularity.table import GRANULARITIES
from secateurs.realise.masked import apply_mask_
from secateurs.realise.sparse.accelerate import accelerate
from secateurs.realise.sparse.choice import Chosen
from secateurs.realise.sparse.native import available

_PROBE = 128, 28
"""Filters, and rows and columns of the image, of the layer that stands for a network."""
_STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Densities at which that layer is timed."""
_REASONS = {
    "vector4": (
        " Four neighbouring filters drop the same inputs, so each input is read once for all "
        "four; what that costs in accuracy, `secateurs compare` measures."
    ),
    "element": "",
}


@dataclass(frozen=True)
class ForSpeed:
    """What to cut, and the sentences that say why."""

    granularity: str
    why: tuple[str, ...]


def for_speed(density: float, *, threads: int = 1) -> ForSpeed:
    """Choose what to cut so that the pruned network is fastest here, by timing a typical layer.

    Each granularity is timed at several densities; where none is faster than the dense layer
    at the density that was asked for, whole channels are cut.
    """
    if not available():
        why = "the sparse kernels were not compiled here, so zeros make nothing faster"
        return ForSpeed("out_channel", (f"{why}: whole channels are removed.",))
    filters, side = _PROBE
    lines = [
        f"Timed here on a layer of {filters} filters, 3 x 3, {side} x {side} positions, on "
        f"{threads} thread{'s' if threads > 1 else ''}:"
    ]
    gains: dict[str, float] = {}
    for grain in _REASONS:
        timed = {d: _timed(grain, d, threads) for d in sorted({*_STEPS, density})}
        gains[grain] = timed[density].dense_s / timed[density].sparse_s
        lines.append(_line(grain, density, gains[grain], timed))
    best = max(gains, key=lambda name: gains[name])
    if gains[best] <= 1:
        lines.append(
            f"At density {density:g} zeros gain nothing: whole channels are removed instead, "
            "which any kernel makes use of."
        )
        return ForSpeed("out_channel", tuple(lines))
    lines.append(f"So {best} is cut.{_REASONS[best]}")
    return ForSpeed(best, tuple(lines))


def _line(grain: str, density: float, gain: float, timed: Mapping[float, Chosen]) -> str:
    paying = [d for d, t in timed.items() if t.sparse_s < t.dense_s]
    until = (
        f"faster than dense up to density {max(paying):g} of those tried"
        if paying
        else "at no density faster than dense"
    )
    return f"{grain} at density {density:g}: {gain:.2f} times as fast as dense; {until}."


def _timed(grain: str, density: float, threads: int) -> Chosen:
    """Time one layer with random weights, cut to a density at a granularity."""
    filters, side = _PROBE
    layer = nn.Conv2d(filters, filters, 3, padding=1)
    sites = GRANULARITIES[grain](layer)
    random = {
        name: torch.rand(site.units, generator=torch.Generator().manual_seed(0))
        for name, site in sites.items()
    }
    counts = {name: max(1, round(density * site.units)) for name, site in sites.items()}
    apply_mask_(layer, select(sites, random, counts))
    x = torch.zeros(1, filters, side, side)
    (line,) = accelerate(layer, x, threads=threads, rounds=0).plan
    return line.chosen
