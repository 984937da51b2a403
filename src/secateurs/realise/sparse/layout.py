"""Where the numbers of an activation lie: planes of rows, with zeros where a filter may reach over.

All of one height and width share one pitch, so that a filter's tap is the same shift at
every position: an output at position q reads the input at q + offset.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateurs.realise.sparse.ops import Product

ALIGN = 16
"""Floats in a cache line, and in the longest vector."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """An activation of `images` times `channels` planes; all numbers count floats."""

    images: int
    channels: int
    rows: int
    columns: int
    pitch: int
    plane: int
    """From one channel to the next; the zeros behind a plane are those before the next."""
    head: int
    """Zeros before the first plane."""

    @property
    def image(self) -> int:
        """From one image to the next."""
        return (
            _up(self.head + self.channels * self.plane, ALIGN) if self.plane > 1 else self.channels
        )

    @property
    def size(self) -> int:
        """What all images take; reading a tile may go `ALIGN` further."""
        return self.images * self.image

    @property
    def positions(self) -> int:
        """Places of one plane that an output is computed for, padding at row ends included."""
        return self.rows * self.pitch


@dataclass(frozen=True)
class Reach:
    """How far over the edges filters read: rows up and down, columns left and right."""

    up: int = 0
    down: int = 0
    left: int = 0
    right: int = 0

    def __or__(self, other: "Reach") -> "Reach":
        """Return what covers both."""
        pairs = zip(_numbers(self), _numbers(other), strict=True)
        return Reach(*(max(a, b) for a, b in pairs))


@dataclass(frozen=True)
class Taps:
    """Where the taps of a kernel read: (phase, row shift, column shift) each, and the reach.

    With a stride the input is first split into phases, one plane each: phase p of a stride s
    holds the rows p, p + s, p + 2 s, ... of the padded input. Within its phase a tap is a shift.
    """

    phase: NDArray[np.int64]
    dy: NDArray[np.int64]
    dx: NDArray[np.int64]
    phases: Size
    """How many phases are read, down and across."""
    reach: Reach


def taps(op: Product) -> Taps:
    """Return where each tap of a product's kernel reads, row by row."""
    height, width = op.weight.shape[2:]
    (py, dy), (px, dx) = (
        _axis(size, op.dilation[i], op.padding[i], op.stride[i])
        for i, size in enumerate((height, width))
    )
    grid = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    y, x = (g.reshape(-1) for g in grid)
    reach = Reach(
        up=max(0, -int(dy.min())),
        down=max(0, int(dy.max())),
        left=max(0, -int(dx.min())),
        right=max(0, int(dx.max())),
    )
    phases = int(py.max()) + 1, int(px.max()) + 1
    return Taps(py[y] * phases[1] + px[x], dy[y], dx[x], phases, reach)


def _axis(
    size: int, dilation: int, padding: int, stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each tap's phase and shift along one axis.

    With a stride the padding is part of the fold, which begins that much earlier.
    """
    place = np.arange(size) * dilation - (padding if stride == 1 else 0)
    return place % stride, place // stride


def fold_padding(op: Product) -> Size:
    """Return how far before the input's begin its first phase begins, down and across."""
    down, across = (0 if s == 1 else p for s, p in zip(op.stride, op.padding, strict=True))
    return down, across


def folded(op: Product, source: Size, made: Size) -> Size | None:
    """Return the size of the phases of an input that must be split or copied first, else None."""
    if op.stride == (1, 1) and source == made:
        return None
    pads = fold_padding(op)
    down, across = (-(-(n + p) // s) for n, p, s in zip(source, pads, op.stride, strict=True))
    return down, across


def pitch(columns: int, reaches: Iterable[tuple[int, Reach]]) -> int:
    """Return the row pitch of all activations of one size.

    Args:
        columns: of the outputs.
        reaches: for each product that makes or reads such an activation, how many columns
            its input has in this pitch, and its reach.
    """
    need = columns
    for width, reach in reaches:
        need = max(need, width + reach.left, columns + reach.right)
    return need


def planes(
    images: int, channels: int, size: Size, pitch: int, reach: Reach, made_rows: int
) -> Layout:
    """Lay out an activation that filters of a certain reach read, making `made_rows` rows."""
    rows, columns = size
    if images * rows * pitch * made_rows == 1 and reach == Reach():
        return Layout(images, channels, 1, 1, 1, 1, 0)
    before = reach.up * pitch + reach.left
    after = max(0, made_rows + reach.down - rows) * pitch + reach.right
    lines = -(-(rows * pitch + max(before, after, ALIGN)) // ALIGN)
    # An odd number of cache lines: neighbouring channels must not fall on the same cache sets.
    return Layout(images, channels, rows, columns, pitch, (lines | 1) * ALIGN, _up(before, ALIGN))


def _numbers(reach: Reach) -> tuple[int, int, int, int]:
    return reach.up, reach.down, reach.left, reach.right


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
