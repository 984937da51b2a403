"""Structured masks: where whole rows, kernels, channels or fibres stay, one bit a unit says so.

A unit is everything a tensor holds at one position of its leading, or any, axes: axes (0,)
of a convolution weight are out-channels, (1,) in-channels, (0, 1) kernels, (0, 1, 2) rows
of kernels, (0, 2, 3) fibres across in-channels. No axes: the whole tensor.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Axes = tuple[int, ...]


def to_units(mask: Mask) -> tuple[Axes, Mask] | None:
    """Return the axes with the fewest units that are each kept or cut whole, and which stay.

    None where only single weights are.

    >>> to_units(np.array([[True, True], [False, False], [True, True]]))
    ((0,), array([ True, False,  True]))
    """
    for axes in sorted(_axes(mask.ndim), key=lambda axes: _units(mask, axes)):
        rest = tuple(set(range(mask.ndim)) - set(axes))
        units = np.asarray(mask.any(axis=rest))
        if np.array_equal(units, mask.all(axis=rest)):
            return axes, units
    return None


def from_units(axes: Axes, units: Mask, shape: tuple[int, ...]) -> Mask:
    """Return the mask, of `shape`, in which exactly these units stay."""
    lined_up = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(units.reshape(lined_up), shape)


def _axes(dimensions: int) -> Iterator[Axes]:
    for count in range(dimensions):
        yield from combinations(range(dimensions), count)


def _units(mask: Mask, axes: Axes) -> int:
    return int(np.prod([mask.shape[axis] for axis in axes], dtype=np.int64))
