"""Example inputs: what a model is called with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Example = Tensor | Sequence[Any] | Mapping[str, Any]
"""One tensor, a sequence of positional arguments, or a mapping of keyword arguments."""

Batch = Any
"""A tensor or mapping of inputs alone, or a sequence (inputs, *labels)."""


def split(batch: Batch) -> tuple[Example, tuple[Any, ...]]:
    """Separate the inputs of a batch from its labels.

    >>> split({"x": 1})
    ({'x': 1}, ())
    >>> split(["inputs", "labels"])
    ('inputs', ('labels',))
    """
    if isinstance(batch, Tensor | Mapping):
        return batch, ()
    return batch[0], tuple(batch[1:])


def arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split an example into positional and keyword arguments.

    >>> arguments({"x": 1})
    ((), {'x': 1})
    """
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example), {}


def call(model: nn.Module, example: Example) -> Any:
    """Call the model on an example."""
    args, kwargs = arguments(example)
    return model(*args, **kwargs)


def map_tensors(function: Callable[[Tensor], Tensor], example: Any) -> Any:
    """Apply a function to every tensor of a nested example or output."""
    return pytree.tree_map_only(Tensor, function, example)


def floats(example: Any, dtype: torch.dtype) -> Any:
    """Cast the floating-point tensors of a nested example; integers stay."""
    return map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, example)


def tensors(output: Any) -> list[Tensor]:
    """List the tensors of a nested output, in order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
