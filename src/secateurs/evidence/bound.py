"""What bounds each operation linearly: rules for the surrogate that importance flows back by.

Parameters arrive as absolute values. A tensor that needs a gradient is an activation, any
other a constant.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from secateurs.evidence.interpret import Rule, operation


def bound(node: fx.Node) -> Rule | None:
    """Return what computes the linear bound of a node's operation; None where it is itself."""
    name = operation(node).removeprefix("aten.")
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in getattr(node.target, "tags", ()) and name not in _LINEAR:
        return _first
    return None


def _first(node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Pass the first operand on: functions whose slope is at most about 1."""
    return x


def _contraction(node: fx.Node, x: Tensor, weight: Tensor, bias: Any = None, *rest: Any) -> Tensor:
    target: Callable[..., Tensor] = node.target  # type: ignore[assignment]
    return target(x, weight, None, *rest)


def _addmm(node: fx.Node, bias: Tensor, x: Tensor, weight: Tensor, **_: Any) -> Tensor:
    return x @ weight


def _sum(node: fx.Node, a: Any, b: Any, **_: Any) -> Any:
    return a + b


def _mul(node: fx.Node, a: Any, b: Any) -> Any:
    return a + b if _active(a) and _active(b) else a * abs(b) if _active(a) else abs(a) * b


def _div(node: fx.Node, a: Any, b: Any, **_: Any) -> Any:
    return a + b if _active(a) and _active(b) else b + abs(a) if _active(b) else a / abs(b)


def _matmul(node: fx.Node, a: Tensor, b: Tensor) -> Tensor:
    if _active(a) and _active(b):
        return torch.full_like(a, 1 / a.shape[-1]) @ b
    return a @ b


def _attention(node: fx.Node, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    """Take every query to attend to all keys alike."""
    if v.shape[1] != q.shape[1]:  # grouped queries
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    return v.mean(dim=-2, keepdim=True).expand(*v.shape[:-2], q.shape[-2], v.shape[-1])


def _batch_norm(
    node: fx.Node,
    x: Tensor,
    weight: Any,
    bias: Any,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Tensor:
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    return x * scale.view(1, -1, *[1] * (x.dim() - 2))


def _native_batch_norm(
    node: fx.Node, x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _batch_norm(node, x, weight, bias, mean, var, False, *rest), mean, var


def _layer_norm(node: fx.Node, x: Tensor, shape: Any, weight: Any = None, *_: Any) -> Tensor:
    return x if weight is None else x * weight


def _group_norm(node: fx.Node, x: Tensor, groups: int, weight: Any = None, *_: Any) -> Tensor:
    return x if weight is None else x * weight.view(1, -1, *[1] * (x.dim() - 2))


def _max_pool(
    node: fx.Node,
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Tensor:
    """Spread evenly over the window: who wins it depends on the input."""
    return F.avg_pool2d(x, kernel, stride or kernel, padding, ceil)


def _max_pool_pair(node: fx.Node, *args: Any) -> tuple[Tensor, None]:
    return _max_pool(node, *args), None


def _adaptive_max_pool(node: fx.Node, x: Tensor, size: Any) -> tuple[Tensor, None]:
    return F.adaptive_avg_pool2d(x, size), None


def _amax(node: fx.Node, x: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    return x.mean(dim=dim or None, keepdim=keepdim)


def _active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


_LINEAR = {"clone", "contiguous", "where", "lerp"}
"""Pointwise operations that are run as they are."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "convolution"), _contraction),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _contraction),
    "addmm": _addmm,
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    "mul": _mul,
    "div": _div,
    **dict.fromkeys(("matmul", "bmm"), _matmul),
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _native_batch_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "group_norm": _group_norm,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": _max_pool_pair,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "amax": _amax,
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), _first),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "prelu"), _first),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half"), _first),
}
