"""A convolution as several thinner ones, one after the other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")


class Factored(nn.Sequential):
    """What one convolution became: convolutions in a row, with nothing between them."""

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as plain values."""
        return {"convolutions": [{name: getattr(c, name) for name in _PLAIN} for c in self]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Factored":
        """Build the layers of which `to_json` told, from their tensors by name.

        Raises:
            KeyError: a value or a tensor is missing, or a tensor has another shape.
        """
        made = []
        for i, fields in enumerate(plain["convolutions"]):
            values = {name: fields[name] for name in _PLAIN}
            values = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
            conv = nn.Conv2d(**values, bias=f"{i}.bias" in tensors, device="meta")
            for name, parameter in list(conv.named_parameters()):
                tensor = tensors[f"{i}.{name}"]
                if tensor.shape != parameter.shape:
                    raise KeyError(f"{i}.{name} of shape {tuple(parameter.shape)}")
                setattr(conv, name, nn.Parameter(tensor))
            made.append(conv)
        return cls(*made)


def factors(conv: nn.Conv2d) -> bool:
    """Say whether a convolution can be written as others in a row: no groups, zeros around."""
    return conv.groups == 1 and conv.padding_mode == "zeros"


def unrolled(weight: Tensor) -> Tensor:
    """Write (out, in, height, width) as a matrix, (in x height, out x width), in float64.

    Its singular values say what a column of `rank` kernels and a row of them can express.
    """
    out, within, height, width = weight.shape
    matrix = weight.detach().double().permute(1, 2, 0, 3)
    return matrix.reshape(within * height, out * width)


def split_kernel(conv: nn.Conv2d, rank: int) -> Factored:
    """Write k x k kernels as a column, k x 1 to `rank` channels, and a row, 1 x k behind it.

    Nearest to the weight in squares for that rank (Eckart & Young 1936); exact at full rank.

    Source: Jaderberg, Vedaldi & Zisserman 2014, arXiv:1405.3866, scheme 2.
    """
    out, within, height, width = conv.weight.shape
    u, s, v = torch.linalg.svd(unrolled(conv.weight), full_matrices=False)
    root = s[:rank].sqrt()
    column = (u[:, :rank] * root).T.reshape(rank, within, height, 1)
    row = (v[:rank] * root[:, None]).reshape(rank, out, width).permute(1, 0, 2).unsqueeze(2)
    first = _like(conv, within, rank, (0,), column, None)
    second = _like(conv, rank, out, (1,), row, conv.bias)
    return Factored(first, second)


def split_outputs(conv: nn.Conv2d, left: Tensor, right: Tensor, constant: Tensor) -> Factored:
    """Write a convolution as a thinner one and a 1 x 1 behind it.

    Outputs y become left · right · y + constant, where the convolution's bias is none of y.

    Args:
        conv: not changed.
        left: (out, rank).
        right: (rank, out).
        constant: (out,), left out where the convolution has no bias.
    """
    rank, out = right.shape
    matrix = right.double() @ conv.weight.detach().double().flatten(1)
    thin = matrix.view(rank, *conv.weight.shape[1:])
    first = _like(conv, conv.in_channels, rank, (0, 1), thin, None)
    bias = None if conv.bias is None else constant
    second = _like(conv, rank, out, (), left[:, :, None, None], bias)
    return Factored(first, second)


def _like(
    conv: nn.Conv2d,
    within: int,
    out: int,
    axes: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
) -> nn.Conv2d:
    """Make a convolution that does what `conv` does along some axes, and nothing along others."""

    def along(values: Any, nothing: int) -> Any:
        if isinstance(values, str):
            return values
        return tuple(v if axis in axes else nothing for axis, v in enumerate(values))

    made = nn.Conv2d(
        within,
        out,
        along(conv.kernel_size, 1),
        along(conv.stride, 1),
        along(conv.padding, 0),
        along(conv.dilation, 1),
        bias=bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        made.weight.copy_(weight)
        if made.bias is not None and bias is not None:
            made.bias.copy_(bias)
    return made.train(conv.training)
