"""Physical removal: the kept indices of every axis of parameters, buffers, optimizer state."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secateurs.core.errors import StructureError
from secateurs.graph.graph import Graph

Keep = Mapping[int, Tensor]
"""Dim → bool (n,), or (groups, n) where the groups of a convolution keep different inputs."""

T = TypeVar("T")


def kept_axes(graph: Graph, removed: Tensor) -> dict[str, dict[int, Tensor]]:
    """Say what stays of every axis that loses something: parameter → dim → bool.

    `removed` is bool (units,), one entry per unit of the graph.
    """
    keeps: dict[str, dict[int, Tensor]] = {}
    for (name, dim), units in graph.axes.items():
        keep = ~(removed[units.clamp(min=0)] & (units >= 0))
        if not bool(keep.all()):
            keeps.setdefault(name, {})[dim] = keep
    return keeps


def cut(x: Tensor, keeps: Keep) -> Tensor:
    """Select the kept indices of the given axes; the result owns its memory.

    An axis of length 1 in `x` is left alone, so a statistic that says nothing about an
    axis passes through.

    Raises:
        StructureError: two groups of one axis keep different numbers of indices.
    """
    keeps = {dim: keep.to(x.device) for dim, keep in keeps.items() if x.shape[dim] > 1}
    for dim, keep in keeps.items():
        if keep.dim() == 2:
            x, keeps = _cut_groups(x, dim, keep, keeps)
    for dim, keep in keeps.items():
        if keep.dim() == 1:
            x = x.index_select(dim, keep.nonzero().squeeze(1))
    return x.clone(memory_format=torch.contiguous_format)


def _cut_groups(x: Tensor, dim: int, keep: Tensor, keeps: Keep) -> tuple[Tensor, dict[int, Tensor]]:
    """Let every group, a block of axis 0, keep its own indices of axis `dim`."""
    groups, rows = keep.shape[0], keep.any(dim=1)
    counts = keep[rows].sum(dim=1)
    if counts.numel() == 0 or int(counts.min()) != int(counts.max()):
        raise StructureError(
            f"the {groups} groups of one axis keep {counts.tolist()} indices; "
            "every group must keep the same number"
        )
    # Shape: (out, in / groups, *kernel) → (groups, out / groups, in / groups, *kernel)
    x = x.view(groups, -1, *x.shape[1:])[rows]
    index = keep[rows].nonzero()[:, 1].view(len(x), *([1] * dim), -1, *([1] * (x.dim() - dim - 2)))
    x = x.take_along_dim(index, dim=dim + 1).flatten(0, 1)
    rest = {d: k for d, k in keeps.items() if d != dim}
    if 0 in rest:
        rest[0] = rest[0].view(groups, -1)[rows].flatten()
    return x, rest


def small_shape(shape: tuple[int, ...], keeps: Keep) -> tuple[int, ...]:
    """Say what `cut` would make of a shape."""
    sizes = list(shape)
    for dim, keep in keeps.items():
        if keep.dim() == 1:
            sizes[dim] = int(keep.sum())
        else:
            rows = keep.any(dim=1)
            sizes[dim] = int(keep[rows][0].sum())
            if 0 not in keeps:
                sizes[0] = sizes[0] // len(rows) * int(rows.sum())
    return tuple(sizes)


@dataclass(frozen=True)
class Shrunk:
    """What a shrunk copy replaced: per canonical name the old tensor, the new one and the axes."""

    old: Mapping[str, Tensor]
    new: Mapping[str, Tensor]
    keeps: Mapping[str, Keep]


def shrink(
    model: nn.Module,
    keeps: Mapping[str, Keep],
    mask: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, Shrunk]:
    """Copy a model with smaller parameters and buffers, zero where `mask` is False.

    Device, `requires_grad`, ties and, unless given, dtype stay; gradients are not copied.
    Module attributes are untouched, so the copy need not run yet.

    Raises:
        StructureError: the model cannot be copied.
    """
    old = named_tensors(model)
    new = {n: _small(t, keeps.get(n, {}), mask.get(n), dtype) for n, t in old.items()}
    memo: dict[int, Any] = {id(old[name]): tensor for name, tensor in new.items()}
    return copy_with(model, memo), Shrunk(old, new, dict(keeps))


def copy_with(thing: T, memo: dict[int, Any]) -> T:
    """Deep-copy with some objects replaced on the way: `memo` is id → replacement."""
    for module in thing.modules() if isinstance(thing, nn.Module) else ():
        for value in vars(module).values():
            # Old-style weight_norm keeps a computed weight, which deepcopy refuses.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    try:
        return copy.deepcopy(thing, memo)
    except (RuntimeError, TypeError) as error:
        raise StructureError(
            f"cannot copy this {type(thing).__name__}: {error}; "
            "copy.deepcopy(model) must work, so drop what it holds that cannot be copied"
        ) from error


def _small(x: Tensor, keeps: Keep, mask: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    with torch.no_grad():
        small = x.detach() if mask is None else x.detach() * mask.to(x.device)
        small = cut(small, keeps) if keeps else small
        small = small.to(dtype) if dtype is not None and x.is_floating_point() else small
        # Copies of large weights are large: one is enough.
        small = small.clone() if small.data_ptr() == x.data_ptr() else small
    if not isinstance(x, nn.Parameter):
        return small
    result = nn.Parameter(small, requires_grad=x.requires_grad)
    result.__dict__.update(x.__dict__)
    return result


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List every parameter, buffer and plain tensor attribute once, by its first dotted name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in all_tensors(model).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List every parameter, buffer and plain tensor attribute under all its dotted names."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                found[f"{path}.{name}" if path else name] = value
    return found


def follow_(optimizer: torch.optim.Optimizer, shrunk: Shrunk) -> None:
    """Point an optimizer at the small parameters and cut its state alike, in place.

    A state tensor follows along every axis on which it is as long as its parameter
    (momentum, exp_avg, factored moments); scalars such as `step` stay.

    Raises:
        StructureError: the optimizer keeps one flat history over all parameters.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise StructureError(
            "LBFGS keeps one flat history over all parameters, which cannot be cut; "
            "make a new optimizer over compacted.model.parameters()"
        )
    names = {id(tensor): name for name, tensor in shrunk.old.items()}
    for group in optimizer.param_groups:
        group["params"] = [
            shrunk.new[names[id(p)]] if id(p) in names else p for p in group["params"]
        ]
    for parameter in [p for p in optimizer.state if id(p) in names]:
        name = names[id(parameter)]
        state = optimizer.state.pop(parameter)
        optimizer.state[shrunk.new[name]] = {
            key: _follow(value, parameter, shrunk.keeps.get(name, {}))
            for key, value in state.items()
        }


def _follow(value: Any, parameter: Tensor, keeps: Keep) -> Any:
    if not isinstance(value, Tensor) or value.dim() != parameter.dim():
        return value
    same = {d for d in keeps if value.shape[d] == parameter.shape[d]}
    if any(v not in (1, p) for v, p in zip(value.shape, parameter.shape, strict=True)):
        return value
    return cut(value, {d: keeps[d] for d in same})
