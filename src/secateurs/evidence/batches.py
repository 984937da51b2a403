"""Batches, and a model that is looked at without being changed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from secateurs.core.errors import EvidenceError
from secateurs.core.example import Batch, Example, map_tensors, split


def placed(model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Example, tuple[Any, ...]]]:
    """Yield (inputs, labels) on the device of the model's first parameter.

    Raises:
        EvidenceError: there is not a single batch.
    """
    device = next((p.device for p in model.parameters()), None)
    batch = None
    for batch in batches:
        yield split(map_tensors(lambda t: t.to(device), batch))
    if batch is None:
        raise EvidenceError("there are no batches to measure on; an iterator may be used up")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and give every module its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
