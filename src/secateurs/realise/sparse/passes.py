"""A batch computed a few images at a time, so that activations stay in the caches."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateurs.core.example import Example, call, map_tensors, tensors
from secateurs.measure.forward import evaluation
from secateurs.realise.sparse.assemble import assemble
from secateurs.realise.sparse.lower import Lowering

AT_ONCE = 2 << 20
"""Floats of activations that a pass may have: 8 MiB, a share of a last-level cache."""


def passes_of(model: nn.Module, example: Example, lowered: Lowering) -> int:
    """Say in how many equal passes a batch is best computed: 1 where it must be done at once.

    As few as keep a pass's activations within `AT_ONCE`, or one image each.
    """
    images = batch_of(example)
    size = assemble(lowered.ops, lowered.shapes, {}).size
    if images < 2 or size <= AT_ONCE or not separable(model, example):
        return 1
    return next(
        n for n in range(1, images + 1) if not images % n and (size <= n * AT_ONCE or n == images)
    )


def batch_of(example: Example) -> int:
    """Return the length that all inputs share along their first axis; 1 if they share none."""
    first = {t.shape[0] if t.dim() else 0 for t in tensors(example)}
    return first.pop() if len(first) == 1 else 1


def part(example: Any, index: int, passes: int) -> Any:
    """Return what one of several equal passes is called with.

    >>> part(torch.arange(6), 1, 3)
    tensor([2, 3])
    """
    return map_tensors(lambda t: t.chunk(passes)[index], example)


def joined(results: list[Any]) -> Any:
    """Put the results of all passes together along their first axis.

    >>> joined([{"y": torch.zeros(2)}, {"y": torch.ones(1)}])
    {'y': tensor([0., 0., 1.])}
    """
    leaves, spec = zip(*(pytree.tree_flatten(result) for result in results), strict=True)
    rows = zip(*leaves, strict=True)
    whole = [torch.cat(row) if isinstance(row[0], Tensor) else row[0] for row in rows]
    return pytree.tree_unflatten(whole, spec[0])


def separable(model: nn.Module, example: Example) -> bool:
    """Tell whether every image of a batch is computed as if it were alone.

    The first and the last image must come out the same alone as among images of NaN, which
    reach whatever depends on them.
    """
    images = batch_of(example)
    if images < 2:
        return False
    try:
        with evaluation(model), torch.no_grad():
            return all(_alone(model, example, index, images) for index in (0, images - 1))
    except Exception:
        return False  # it cannot be called with one image: whatever the reason, it is left whole


def _alone(model: nn.Module, example: Example, index: int, images: int) -> bool:
    def lonely(t: Tensor) -> Tensor:
        others = torch.full_like(t, torch.nan) if t.is_floating_point() else t.roll(1, 0)
        others[index] = t[index]
        return others

    whole = tensors(call(model, map_tensors(lonely, example)))
    one = tensors(call(model, part(example, index, images)))
    return len(whole) == len(one) and all(
        w.dim() > 0
        and w.shape == (images, *o.shape[1:])
        and len(o) == 1
        and torch.allclose(w[index], o[0], rtol=1e-3, atol=1e-4 * float(o.abs().max()))
        for w, o in zip(whole, one, strict=True)
    )
