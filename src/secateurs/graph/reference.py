"""The oracle: the original program, with what is removed held at zero everywhere.

It knows nothing of smaller shapes. Every operation runs on full tensors in float64; then
the removed positions of its result are set to zero. Statistics across channels are taken
over the positions that stay, by the formulas below.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateurs.core.example import Example, arguments, floats
from secateurs.graph.graph import Graph
from secateurs.graph.labels import Layer, Value
from secateurs.graph.rewrite import label_mask
from secateurs.graph.walk import operation

_HALVES = (torch.float32, torch.float16, torch.bfloat16)


def reference(graph: Graph, removed: Tensor, example: Example) -> Any:
    """Run the traced program in float64 without the removed units, bool (units,).

    Positions that are removed are zero after every operation, and norms, softmax and
    averages count only what stays.
    """
    return _Reference(graph, label_mask(graph, removed.cpu())).call(example)


def run_double(module: fx.GraphModule, example: Example) -> Any:
    """Run a traced or rewritten program in float64, casts to lower precision ignored."""
    return _Double(module).call(example)


class _Double(fx.Interpreter):
    """Interpret a program in float64."""

    def call(self, example: Example) -> Any:
        """Run on an example."""
        args, kwargs = floats(arguments(example), torch.float64)
        flat = pytree.tree_leaves((args, kwargs))
        program: Any = self.module
        holders = [n for n in program.graph.nodes if n.op == "placeholder"]
        if len(flat) != len(holders):
            flat = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        assert len(flat) == len(holders)
        with torch.no_grad():
            flat = [t.clone() if isinstance(t, Tensor) else t for t in flat]
            return self.run(*flat, enable_io_processing=False)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, with attributes and casts in float64."""
        if n.op == "get_attr":
            held = super().run_node(n)
            if isinstance(held, Tensor):
                held = held.detach().clone()
                return held.double() if held.is_floating_point() else held
            return held
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Replace lower precision among the arguments."""
        args, kwargs = pytree.tree_map(
            lambda a: torch.float64 if isinstance(a, torch.dtype) and a in _HALVES else a,
            (args, kwargs),
        )
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None
        result = super().call_function(target, args, kwargs)
        if isinstance(result, Tensor) and result.dtype in _HALVES:
            return result.double()
        return result


class _Reference(_Double):
    """Interpret the original program with removed positions at zero."""

    def __init__(self, graph: Graph, stays: Tensor) -> None:
        super().__init__(graph.module)
        self.wiring, self.stays = graph, stays

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and zero what is removed in its result."""
        across = (
            _ACROSS.get(operation(n).removeprefix("aten.")) if n.op == "call_function" else None
        )
        source = n.args[0] if n.args else None
        keep = (
            self._keep(self.wiring.values.get(source.name)) if isinstance(source, fx.Node) else None
        )
        if across is not None and keep is not None:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            result = across(keep.expand(args[0].shape), *args, **kwargs)
        else:
            result = super().run_node(n)
        value = self.wiring.values.get(n.name)
        if isinstance(result, (tuple, list)) and isinstance(value, list):
            return [self._zeroed(t, v) for t, v in zip(result, value, strict=True)]
        return self._zeroed(result, value)

    def _zeroed(self, result: Any, value: Any) -> Any:
        keep = self._keep(value)
        if keep is None or not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        if any(n > 1 and s == 0 for n, s in zip(result.shape, result.stride(), strict=True)):
            return result.masked_fill(~keep, 0)  # an expanded tensor
        return result.masked_fill_(~keep, 0)  # in place: views of it see it too

    def _keep(self, value: Any) -> Tensor | None:
        """Say which positions stay, None where all do."""
        if not isinstance(value, Value):
            return None
        keep: Tensor | None = None
        for layer in value.layers:
            here = self._layer(layer)
            if not bool(here.all()):
                keep = here if keep is None else keep & here
        return keep

    def _layer(self, layer: Layer) -> Tensor:
        return self.stays[layer.ids]


def _mean(keep: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    dims = _dims(x, dim)
    return (x * keep).sum(dims, keepdim) / keep.sum(dims, keepdim).clamp(min=1)


def _var(
    keep: Tensor,
    x: Tensor,
    dim: Any = None,
    unbiased: Any = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    dims = _dims(x, None if isinstance(dim, bool) else dim)
    less = correction if correction is not None else float(unbiased if dim is not None else 1)
    far = ((x - _mean(keep, x, dims, True)) * keep).square().sum(dims, keepdim)
    return far / (keep.sum(dims, keepdim) - less).clamp(min=0)


def _std(keep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _var(keep, *args, **kwargs).sqrt()


def _filled(value: float, op: Callable[..., Any]) -> Callable[..., Any]:
    def run(keep: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Tensor):
            return op(x, *args, **kwargs)
        return op(x.masked_fill(~keep, value), *args, **kwargs)

    return run


def _softmax(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(keep: Tensor, x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
        # Rows that are gone altogether come out as NaN here and are zeroed afterwards.
        return op(x.masked_fill(~keep, -torch.inf), dim)

    return run


def _layer_norm(
    keep: Tensor,
    x: Tensor,
    shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    dims = list(range(x.ndim - len(shape), x.ndim))
    mean = _mean(keep, x, dims, True)
    var = _mean(keep, (x - mean).square(), dims, True)
    out = (x - mean) / (var + eps).sqrt()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _rms_norm(
    keep: Tensor, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = list(range(x.ndim - len(shape), x.ndim))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    out = x / (_mean(keep, x.square(), dims, True) + eps).sqrt()
    return out if weight is None else out * weight


def _group_norm(
    keep: Tensor,
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    parts, held = (t.reshape(x.shape[0], groups, -1) for t in (x, keep))
    mean = _mean(held, parts, [2], True)
    var = _mean(held, (parts - mean).square(), [2], True)
    out = ((parts - mean) / (var + eps).sqrt()).view(x.shape)
    side = [1, -1, *[1] * (x.ndim - 2)]
    out = out if weight is None else out * weight.view(side)
    return out if bias is None else out + bias.view(side)


def _batch_norm(
    keep: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Tensor:
    if not training:
        return F.batch_norm(x, mean, var, weight, bias, False, momentum, eps)
    dims = [d for d in range(x.ndim) if d != 1]
    mean = _mean(keep, x, dims, True)
    out = (x - mean) / (_mean(keep, (x - mean).square(), dims, True) + eps).sqrt()
    side = [1, -1, *[1] * (x.ndim - 2)]
    out = out if weight is None else out * weight.view(side)
    return out if bias is None else out + bias.view(side)


def _dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(x.ndim))
    return [dim] if isinstance(dim, int) else list(dim)


_ACROSS: Mapping[str, Callable[..., Any]] = {
    "mean": _mean,
    "var": _var,
    "std": _std,
    "amax": _filled(-torch.inf, torch.amax),
    "amin": _filled(torch.inf, torch.amin),
    "max": _filled(-torch.inf, torch.max),
    "min": _filled(torch.inf, torch.min),
    "logsumexp": _filled(-torch.inf, torch.logsumexp),
    "prod": _filled(1.0, torch.prod),
    "softmax": _softmax(F.softmax),
    "log_softmax": _softmax(F.log_softmax),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
}
