"""Which entries of which parameters stay."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class Mask(Mapping[str, Tensor]):
    """Parameter name → bool tensor of its shape; True stays. A frozen value.

    Parameters without an entry stay whole. `a & b` keeps what both keep.

    >>> m = Mask({"w": torch.tensor([True, False])}) & Mask({"b": torch.tensor([True])})
    >>> sorted(m), m.density
    (['b', 'w'], 0.6666666666666666)
    """

    def __init__(self, keep: Mapping[str, Tensor]) -> None:
        """Copy the tensors, so later changes to them do not reach the mask."""
        self._keep = {name: t.detach().to(torch.bool, copy=True) for name, t in keep.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Return the mask of one parameter."""
        return self._keep[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the parameter names."""
        return iter(self._keep)

    def __len__(self) -> int:
        """Count the masked parameters."""
        return len(self._keep)

    def __and__(self, other: Mapping[str, Tensor]) -> "Mask":
        """Keep what both keep."""
        return Mask({**self, **_and(self, other)})

    def __repr__(self) -> str:
        """Show the number of parameters and the density."""
        return f"Mask({len(self)} parameters, density {self.density:.4g})"

    @property
    def kept(self) -> int:
        """How many masked entries stay."""
        return sum(int(torch.count_nonzero(t)) for t in self._keep.values())

    @property
    def total(self) -> int:
        """How many entries the masked parameters have."""
        return sum(t.numel() for t in self._keep.values())

    @property
    def density(self) -> float:
        """Fraction kept of the masked parameters, 0 to 1; 1 when nothing is masked."""
        return self.kept / self.total if self.total else 1.0


def _and(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: a[name] & keep if name in a else keep for name, keep in b.items()}
