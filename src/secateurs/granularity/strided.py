"""Every s-th position of a kernel, so that what stays is a smaller dense matrix."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from secateurs.core.errors import ShapeError
from secateurs.granularity.blocks import decided, measured


@dataclass(frozen=True)
class Strided:
    """Cut the flattened kernels of one weight into `stride` offset classes; each is one unit.

    Offset o holds the positions q with q mod stride = o. Every `stride` consecutive units
    are the offsets of one kernel and form a pool, so a quota of one per pool keeps every
    stride-th position. `shared` ties the kernels that read the same input channel: the
    dropped positions then leave the lowered matrix product as whole columns.

    Source: Anwar, Hwang & Sung 2017, "Structured pruning of deep convolutional neural
    networks", intra-kernel strided sparsity.
    """

    param: str
    shape: tuple[int, ...]
    stride: int
    shared: bool = True
    groups: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        """Refuse a stride that leaves an offset without positions."""
        if not 2 <= self.stride <= self._taps:
            raise ShapeError(
                f"a stride of {self.stride} does not fit the {self._taps} kernel positions of "
                f"{self.param!r}, shape {self.shape}; use 2 to {self._taps}"
            )

    @property
    def among(self) -> int:
        """The offsets of one kernel compete with each other."""
        return self.stride

    @property
    def units(self) -> int:
        """Offsets times kernels, or times input channels where they share."""
        a, b, c = self._split
        if not self.shared:
            return a * b * c * self.stride
        return a * (b if self.transposed else c) * self.stride

    @property
    def params(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.param,)

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Lay the offset classes out as rows, padded with zeros: → (units, size)."""
        tensor = measured(self.param, self.shape, tensors).reshape(*self._split, self._taps)
        laps = math.ceil(self._taps / self.stride)
        padded = F.pad(tensor, (0, laps * self.stride - self._taps))
        # Shape: (groups, rows, columns, laps, offsets) → units first, laps and sharers last.
        split: Tensor = padded.view(*self._split, laps, self.stride).permute(self._axes)
        return split.reshape(self.units, -1)

    def scatter(self, keep: Tensor) -> dict[str, Tensor]:
        """Mask the offsets that go: bool (units,) → bool of the parameter's shape."""
        a, b, c = self._split
        laps = math.ceil(self._taps / self.stride)
        full = (a, b, c, laps, self.stride)
        unit_axes = self._axes[: 3 if self.shared else 4]
        lengths = [full[axis] if axis in unit_axes else 1 for axis in range(5)]
        kept = decided(self.param, self.units, keep).view(lengths).expand(full)
        flat = kept.reshape(a, b, c, laps * self.stride)[..., : self._taps]
        return {self.param: flat.reshape(self.shape)}

    @property
    def _taps(self) -> int:
        return math.prod(self.shape[2:])

    @property
    def _split(self) -> tuple[int, int, int]:
        """(groups, axis 0 of one group, axis 1)."""
        return self.groups, self.shape[0] // self.groups, self.shape[1]

    @property
    def _axes(self) -> tuple[int, ...]:
        """Unit axes first; of (group, axis 0, axis 1, lap, offset)."""
        if not self.shared:
            return (0, 1, 2, 4, 3)
        inputs, sharers = (1, 2) if self.transposed else (2, 1)
        return (0, inputs, 4, sharers, 3)
