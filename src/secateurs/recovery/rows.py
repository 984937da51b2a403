"""A layer as a matrix product: inputs and outputs at some positions, one row each."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from secateurs.core.layers import multiplied


@dataclass(frozen=True)
class Linear:
    """How a linear or convolution layer's weight is a matrix per group: (groups, out, size).

    `size` is the group's input channels times the kernel's positions, channels first. Fits
    `nn.Linear`, the linear layer of GPT-2, and convolutions with any stride, padding,
    dilation and groups; transposed convolutions are left out.
    """

    module: nn.Module

    @staticmethod
    def of(module: nn.Module) -> "Linear | None":
        """Return the module's matrix view; None where it has none."""
        if isinstance(module, (_ConvTransposeNd, nn.MultiheadAttention)):
            return None
        found = [name for name, *_ in multiplied(module)]
        plain = isinstance(getattr(module, "weight", None), nn.Parameter)
        return Linear(module) if found == ["weight"] and plain else None

    @property
    def weight(self) -> nn.Parameter:
        """The parameter itself."""
        return self.module.get_parameter("weight")

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored (in, out)."""
        return not isinstance(self.module, (nn.Linear, _ConvNd))

    @property
    def out_axis(self) -> int:
        """Which axis of the weight counts outputs."""
        return 1 if self.transposed else 0

    @property
    def groups(self) -> int:
        """How many groups the channels are split into."""
        return self.module.groups if isinstance(self.module, _ConvNd) else 1

    @property
    def taps(self) -> int:
        """Kernel positions; 1 for a linear layer."""
        return prod(self.weight.shape[2:])

    @property
    def spatial(self) -> int:
        """How many axes the kernel has."""
        return self.weight.dim() - 2

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias, where there is one."""
        found = getattr(self.module, "bias", None)
        return found if isinstance(found, nn.Parameter) else None

    def matrix(self) -> Tensor:
        """Copy the weight as (groups, out per group, size)."""
        weight = self.weight.detach().T if self.transposed else self.weight.detach()
        return weight.reshape(self.groups, -1, prod(weight.shape[1:])).clone()

    def write_(self, matrix: Tensor) -> None:
        """Overwrite the weight with a matrix, (groups, out per group, size)."""
        weight = self.weight
        stored = matrix.reshape(weight.shape[::-1]).T if self.transposed else matrix
        with torch.no_grad():
            weight.copy_(stored.reshape(weight.shape))

    def positions(self, y: Tensor, per_example: int | None, generator: Generator) -> Tensor:
        """Draw output positions: int64 (batch, positions), all of them when None or too few."""
        batch, places = y.shape[0], self._places(y)
        if per_example is None or per_example >= places:
            return torch.arange(places).expand(batch, -1)
        draws = torch.rand(batch, places, generator=generator)
        return draws.argsort(dim=1)[:, :per_example]

    def outputs(self, y: Tensor, at: Tensor) -> Tensor:
        """Read an output, or anything of its shape, at positions: → (rows, out)."""
        flat = y.flatten(2).transpose(1, 2) if self.spatial else y.reshape(len(y), -1, y.shape[-1])
        index = at.to(y.device)[:, :, None].expand(-1, -1, flat.shape[2])
        return flat.gather(1, index).flatten(0, 1)

    def inputs(self, x: Tensor, y_shape: torch.Size, at: Tensor) -> Tensor:
        """Read what the outputs at positions are made of: → (rows, groups, size)."""
        at = at.to(x.device)
        if not self.spatial:
            flat = x.reshape(len(x), -1, x.shape[-1])
            index = at[:, :, None].expand(-1, -1, x.shape[-1])
            return flat.gather(1, index).flatten(0, 1)[:, None]
        padded, index = self._windows(x, y_shape, at)
        batch, positions, _ = index.shape
        example = torch.arange(batch, device=x.device)[:, None, None]
        # Shape: (batch, positions, taps, channels) → rows with channels before taps
        read = padded.flatten(2).transpose(1, 2)[example, index]
        return read.transpose(2, 3).reshape(batch * positions, self.groups, -1)

    def _windows(self, x: Tensor, y_shape: torch.Size, at: Tensor) -> tuple[Tensor, Tensor]:
        """Pad the input, and say where in it each position's window lies: (batch, p, taps)."""
        conv = self.module
        assert isinstance(conv, _ConvNd)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
        index = torch.zeros(1, 1, 1, dtype=torch.long, device=x.device)
        places = torch.unravel_index(at, y_shape[2:])
        taps = torch.unravel_index(
            torch.arange(self.taps, device=x.device), tuple(self.weight.shape[2:])
        )
        for d, (place, tap) in enumerate(zip(places, taps, strict=True)):
            here = place[:, :, None] * conv.stride[d] + tap * conv.dilation[d]
            index = index * padded.shape[2 + d] + here
        return padded, index

    def _places(self, y: Tensor) -> int:
        return prod(y.shape[2:]) if self.spatial else prod(y.shape[1:-1])


def linears(model: nn.Module) -> dict[str, Linear]:
    """List the layers that are matrix products by path; not those whose weight others share."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = {path: Linear.of(module) for path, module in model.named_modules()}
    return {
        path: linear
        for path, linear in found.items()
        if linear is not None and owners[id(linear.weight)] == 1
    }


def weight_name(path: str) -> str:
    """Name the weight of the module at a path."""
    return f"{path}.weight" if path else "weight"


def kept_outputs(linear: Linear, path: str, kept: Mapping[str, Mapping[int, Tensor]]) -> Tensor:
    """Say which outputs of the original layer a smaller one still has: int64, in order."""
    whole = torch.ones(linear.weight.shape[linear.out_axis], dtype=torch.bool)
    keep = kept.get(weight_name(path), {}).get(linear.out_axis, whole)
    return keep.flatten().nonzero().squeeze(1)
