"""One parameter cut into equal blocks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from secateurs.core.errors import EvidenceError, ShapeError


@dataclass(frozen=True)
class Blocks:
    """Cut one parameter into equal blocks; each block is one unit.

    For a convolution weight (out, in, kh, kw) the grains differ only in `block`:
        element (1, 1, 1, 1)     kernel      (1, 1, kh, kw)
        row     (1, 1, 1, kw)    out channel (1, in, kh, kw)

    >>> site = Blocks("w", shape=(2, 4), block=(1, 2))
    >>> site.units
    4
    """

    param: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    among: int | None = None
    order: tuple[int, ...] | None = None
    """Axes from slowest to fastest in the numbering of the units; None means as stored."""

    def __post_init__(self) -> None:
        """Refuse blocks and pools that do not fill the parameter."""
        fits = len(self.block) == len(self.shape) and all(
            b > 0 and n % b == 0 for n, b in zip(self.shape, self.block, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"blocks of {self.block} do not fill {self.param!r} of shape {self.shape}; "
                f"use a divisor of every length"
            )
        if self.among is not None and (self.among < 1 or self.units % self.among):
            raise ShapeError(
                f"pools of {self.among} do not divide the {self.units} units of {self.param!r}"
            )

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks lie along each axis."""
        return tuple(n // b for n, b in zip(self.shape, self.block, strict=True))

    @property
    def units(self) -> int:
        """How many blocks there are."""
        return math.prod(self.grid)

    @property
    def params(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.param,)

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Lay the blocks out as rows: → (units, weights per block).

        A tensor of length 1 along an axis is repeated along it, so the columns of every
        kind speak of the same weights. A view of the tensor where its strides allow one.
        """
        tensor = measured(self.param, self.shape, tensors)
        if math.prod(self.block) == 1:
            if self._order != tuple(range(len(self.shape))):
                tensor = tensor.permute(self._order)
            return tensor.reshape(self.units, 1)
        split = [n for pair in zip(self.grid, self.block, strict=True) for n in pair]
        axes = [2 * axis for axis in self._order] + [
            2 * axis + 1 for axis in range(len(self.shape))
        ]
        # Shape: (grid, block) pairs → all grid axes, then all block axes.
        return tensor.reshape(split).permute(axes).reshape(self.units, math.prod(self.block))

    def scatter(self, keep: Tensor) -> dict[str, Tensor]:
        """Mask the blocks that go: bool (units,) → bool of the parameter's shape."""
        grid = decided(self.param, self.units, keep).view([self.grid[axis] for axis in self._order])
        # argsort of a permutation is its inverse
        grid = grid.permute(sorted(range(len(self.shape)), key=self._order.__getitem__))
        pairs = [(n, 1) for n in self.grid]
        split = [n for pair in zip(self.grid, self.block, strict=True) for n in pair]
        blocks = grid.reshape([n for pair in pairs for n in pair]).expand(split)
        return {self.param: blocks.reshape(self.shape)}

    @property
    def _order(self) -> tuple[int, ...]:
        return self.order or tuple(range(len(self.shape)))


def measured(param: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
    """Find the evidence about one parameter, repeated along the axes of length 1.

    Raises:
        EvidenceError: there is none.
        ShapeError: it has neither the parameter's shape nor length 1 where it differs.
    """
    if param not in tensors:
        raise EvidenceError(
            f"nothing was measured about {param!r}, only about "
            f"{', '.join(sorted(tensors)) or 'no parameter'}"
        )
    tensor = tensors[param]
    fits = tensor.dim() == len(shape) and all(
        have in (1, want) for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"evidence about {param!r} has shape {tuple(tensor.shape)}, the parameter {shape}; "
            f"use the parameter's shape, or length 1 along an axis"
        )
    return tensor.expand(shape)


def decided(name: str, units: int, keep: Tensor) -> Tensor:
    """Check that a decision holds one bool per unit."""
    if keep.shape != (units,):
        raise ShapeError(
            f"a decision about {name!r} has shape {tuple(keep.shape)}, not one bool for each of "
            f"its {units} units, ({units},)"
        )
    return keep.bool()
