"""A convolution as a matrix product from which the dropped columns are gone."""

import copy
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from secateurs.core.errors import ShapeError, StructureError

_PLAIN = (
    "groups",
    "out_channels",
    "kernel",
    "stride",
    "dilation",
    "padding",
    "padding_mode",
    "counts",
)


class Lowered(nn.Module):
    """What a convolution computes whose filters share their dropped positions, as y = W x.

    A column of W is one kernel position of one input channel. Those that no filter of a
    group uses are in neither matrix, so a group's product is (out, columns) by (columns,
    positions), dense, without indices in its inner loop.

    Source: Anwar, Hwang & Sung 2017, "Structured pruning of deep convolutional neural
    networks", section 3, lowering.
    """

    taps: Tensor
    """(columns, 1 + kernel axes), int64: the input channel and the kernel position."""

    def __init__(self, conv: _ConvNd, keep: Tensor) -> None:
        """Copy the kept weights of `conv`; see `lowered`."""
        super().__init__()
        columns = _columns(conv, keep)
        self.groups, self.out_channels = conv.groups, conv.out_channels
        self.kernel, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.padding = _padding(conv)
        self.padding_mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        weight = conv.weight.detach() * keep.to(conv.weight)
        share = weight.reshape(conv.groups, -1, prod(weight.shape[1:]))
        self.counts = columns.sum(dim=1).tolist()
        self.weight = nn.ParameterList(
            nn.Parameter(w[:, kept].clone()) for w, kept in zip(share, columns, strict=True)
        )
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        # Shape: (groups, channels of a group · positions) → one row a column of all groups.
        grid = columns.reshape(conv.groups * weight.shape[1], *weight.shape[2:])
        self.register_buffer("taps", grid.nonzero())

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as plain values."""
        return {name: getattr(self, name) for name in _PLAIN}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Lowered":
        """Build the layer of which `to_json` told, from its tensors by name.

        Raises:
            KeyError: a value or a tensor is missing.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        for name in _PLAIN:
            value = plain[name]
            tuples = isinstance(value, list) and name != "counts"
            setattr(layer, name, tuple(value) if tuples else value)
        layer.weight = nn.ParameterList(
            nn.Parameter(tensors[f"weight.{i}"]) for i in range(layer.groups)
        )
        layer.bias = nn.Parameter(tensors["bias"]) if "bias" in tensors else None
        layer.register_buffer("taps", tensors["taps"])
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, *size) to (batch, out, *size), as the masked convolution does."""
        if any(self.padding):
            x = F.pad(x, self.padding, mode=self.padding_mode)
        windows, size = self._windows(x.contiguous())
        index: Any = (slice(None), *self.taps.unbind(1))
        rows = windows[index].flatten(2)
        parts = [
            w @ part
            for w, part in zip(self.weight, torch.split(rows, self.counts, dim=1), strict=True)
        ]
        y = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if self.bias is not None:
            y = y + self.bias.view(-1, 1)
        return y.view(len(x), self.out_channels, *size)

    def _windows(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """View the padded input as (batch, in, *kernel, *size), without copying it."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        lengths = zip(x.shape[2:], reach, self.stride, strict=True)
        size = tuple((n - r) // s + 1 for n, r, s in lengths)
        batch, channel, *steps = x.stride()
        taps = [step * d for step, d in zip(steps, self.dilation, strict=True)]
        moves = [step * s for step, s in zip(steps, self.stride, strict=True)]
        shape = (*x.shape[:2], *self.kernel, *size)
        return x.as_strided(shape, (batch, channel, *taps, *moves)), size

    @property
    def columns(self) -> int:
        """How many columns W has, over all groups."""
        return len(self.taps)

    def extra_repr(self) -> str:
        """Show how much of the product is left."""
        return f"{self.out_channels} out, {self.columns} columns, {self.groups} groups"


def lowered(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """Copy a model with each masked convolution that can be lowered as a smaller product.

    Convolutions that the mask does not name stay; so do those that it keeps whole.

    Args:
        model: any module.
        mask: name of a convolution's weight → bool of its shape. All filters of a group keep
            the same positions.

    Raises:
        StructureError: a name is no convolution's weight, or the convolution is transposed.
        ShapeError: filters keep different positions, so no column is free.
    """
    small = copy.deepcopy(model)
    for name, keep in mask.items():
        path, _, attribute = name.rpartition(".")
        module = dict(small.named_modules()).get(path)
        if not isinstance(module, _ConvNd) or module.transposed or attribute != "weight":
            kind = type(module).__name__ if module is not None else "nothing"
            raise StructureError(
                f"{name!r} belongs to {kind}; only the weights of convolutions that are not "
                "transposed can be lowered, so leave it out of the mask"
            )
        if keep.shape == module.weight.shape and bool(keep.all()):
            continue
        layer = _named(name, module, keep)
        if not path:
            return layer
        small.set_submodule(path, layer)
    return small


def _named(name: str, conv: _ConvNd, keep: Tensor) -> Lowered:
    try:
        return Lowered(conv, keep)
    except ShapeError as error:
        raise ShapeError(f"{name!r}: {error}") from None


def _columns(conv: _ConvNd, keep: Tensor) -> Tensor:
    """Return which columns stay, bool (groups, channels of a group · kernel positions)."""
    if keep.shape != conv.weight.shape:
        raise ShapeError(
            f"a mask of shape {tuple(keep.shape)} does not fit a weight of shape "
            f"{tuple(conv.weight.shape)}"
        )
    share = keep.reshape(conv.groups, -1, prod(keep.shape[1:]))
    columns = share[:, 0]
    if not torch.equal(share, columns.unsqueeze(1).expand_as(share)):
        own = int((share != share[:, :1]).any(dim=2).sum())
        raise ShapeError(
            f"{own} of {conv.out_channels} filters keep other positions than the first of their "
            "group, so the input matrix stays whole; use offsets that filters share "
            "(strided(..., shared=True))"
        )
    return columns


def _padding(conv: _ConvNd) -> tuple[int, ...]:
    """Return what `F.pad` takes: the last axis first, before and after."""
    if isinstance(conv.padding, str):
        reach = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        both = [(r // 2, r - r // 2) if conv.padding == "same" else (0, 0) for r in reach]
    else:
        both = [(p, p) for p in conv.padding]
    return tuple(n for pair in reversed(both) for n in pair)
