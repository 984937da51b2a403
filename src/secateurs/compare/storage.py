"""What pruned weights take on disk: the paper's formula, its format, and our container."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import ShapeError
from secateurs.core.site import Site
from secateurs.realise.coding.bits import pack, unpack
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Uniform

WEIGHT_BITS, INDEX_BITS = 8, 4
"""The paper's: weights of 8 bits, and one relative index of 4 bits for each kept grain."""

_SKIP = (1 << INDEX_BITS) - 1


@dataclass(frozen=True)
class Stored:
    """Bytes of the same weights, stored three ways; `dense` are 8-bit weights without zeros cut."""

    dense: int
    formula: float
    """See `ratio`."""
    grains: int
    """8-bit grains with 4-bit gaps, fillers included: the length of what `grains` returns."""
    container: int
    """Our file of the same 8-bit weights: the smallest that its codecs make."""

    def __add__(self, other: "Stored") -> "Stored":
        """Add the layers of a model up."""
        return Stored(
            self.dense + other.dense,
            self.formula + other.formula,
            self.grains + other.grains,
            self.container + other.container,
        )


def ratio(density: float, size: int) -> float:
    """Return bytes over dense bytes when grains of `size` weights stay: d · (8g + 4) / 8g.

    >>> [round(ratio(1, size), 3) for size in (1, 3, 9)]
    [1.5, 1.167, 1.056]

    Source: Mao et al. 2017, arXiv:1705.08922, section 5.
    """
    return density * (WEIGHT_BITS * size + INDEX_BITS) / (WEIGHT_BITS * size)


def stored(site: Site, weight: Tensor) -> Stored:
    """Store a weight whose dropped units are zero, at the site's grain.

    Raises:
        ShapeError: units of the site have different sizes.
    """
    (name,) = site.params
    step, level = eight_bits(weight)
    rows = site.gather({name: weight})
    if rows.numel() != weight.numel():
        raise ShapeError(f"units of {name!r} differ in size; store them by elements")
    kept = int((rows != 0).any(dim=1).sum())
    density = kept / site.units
    return Stored(
        dense=weight.numel(),
        formula=weight.numel() * ratio(density, rows.shape[1]),
        grains=len(grains(site.gather({name: level}))),
        container=len(encode({name: Uniform(step, level)})),
    )


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to 255 even levels around zero: → (step, ()), (level, its shape, int32).

    A kept weight never becomes zero, so that the pattern stays what it was.
    """
    wide = weight.detach().cpu().double()
    step = (wide.abs().max() / 127).clamp_min(1e-30)
    level = (wide / step).round().int()
    smallest = wide.sign().int()
    return step.float(), torch.where(level == 0, smallest, level)


def grains(rows: Tensor) -> bytes:
    """Return 4-bit gaps between kept rows, then the kept rows' 8-bit levels.

    A field of 0 to 14 is a gap less one and leads to a row; 15 moves on by 15 and leads
    nowhere, a filler that costs its index alone.

    Args:
        rows: levels, (units, size); a row of zeros is dropped.

    Source: one relative index a grain, as Mao et al. 2017 count it. Deviation: the fillers of
    Han, Mao & Dally 2016 carry a zero weight each, which for a whole filter costs too much.
    """
    levels: NDArray[np.int8] = rows.numpy().astype(np.int8)
    kept = np.flatnonzero(levels.any(axis=1))
    return pack(to_fields(kept), INDEX_BITS) + levels[kept].tobytes()


def from_grains(blob: bytes, fields: int, units: int, size: int) -> Tensor:
    """Return the rows that `grains` was given, of which it wrote so many fields."""
    indices = (INDEX_BITS * fields + 7) // 8
    kept = from_fields(unpack(blob[:indices], INDEX_BITS, fields, "grains"))
    rows = np.zeros((units, size), np.int8)
    rows[kept] = np.frombuffer(blob[indices:], np.int8).reshape(len(kept), size)
    return torch.from_numpy(rows)


def to_fields(kept: NDArray[Any]) -> NDArray[Any]:
    """Return the fields that lead from place to place.

    >>> to_fields(np.array([1, 2, 33])).tolist()
    [1, 0, 15, 15, 0]
    """
    gap = np.diff(kept, prepend=-1) - 1
    skips = gap // _SKIP
    fields = np.full(gap.size + int(skips.sum()), _SKIP)
    fields[np.cumsum(skips + 1) - 1] = gap % _SKIP
    return fields


def from_fields(fields: NDArray[Any]) -> NDArray[Any]:
    """Return the places that the fields lead to."""
    places = np.cumsum(np.where(fields == _SKIP, _SKIP, fields + 1)) - 1
    found: NDArray[Any] = places[fields != _SKIP]
    return found
