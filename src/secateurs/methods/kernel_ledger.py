"""What kernels that were cut save, counted: weights, and the index that says which are left."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from secateurs.core.layers import layers


@dataclass(frozen=True)
class Ledger:
    """Over the convolutions of a model whose kernels were cut."""

    kernels: int
    """How many there are in the dense layers."""
    kept: int
    weights: int
    kept_weights: int
    index_bits: int
    """Of the cheaper of two lists for each layer: one bit per kernel, or the number of each
    kept kernel within its filter."""

    def __str__(self) -> str:
        """Say it in a sentence."""
        if not self.kernels:
            return "no kernels were cut"
        return (
            f"{self.kept} of {self.kernels} kernels stay in the convolutions that are left, "
            f"{self.kept_weights} of {self.weights} weights; which ones takes "
            f"{math.ceil(self.index_bits / 8)} bytes"
        )


def ledger(model: nn.Module, mask: Mapping[str, Tensor]) -> Ledger:
    """Count what a mask leaves of the kernels of the convolutions it speaks of."""
    total = Ledger(0, 0, 0, 0, 0)
    for name, layer in layers(model).items():
        if name not in mask or not layer.kernel:
            continue
        keep = mask[name].flatten(2).any(dim=2)
        kept, taps = int(keep.sum()), math.prod(layer.kernel)
        number = math.ceil(math.log2(keep.shape[1])) if keep.shape[1] > 1 else 0
        total = Ledger(
            total.kernels + keep.numel(),
            total.kept + kept,
            total.weights + keep.numel() * taps,
            total.kept_weights + kept * taps,
            total.index_bits + min(keep.numel(), kept * number),
        )
    return total
