"""Weights that a model sees through something that learns, while it trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from secateurs.realise.hold import attach_, detach_
from secateurs.realise.slots import slots


@contextmanager
def through(model: nn.Module, stages: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let every named weight be seen as `stage(weight)`; it is that when the block ends.

    Parameters and buffers of a stage are the model's meanwhile: an optimizer built inside
    trains them, and a checkpoint holds them.

    >>> layer = nn.Linear(2, 1)
    >>> with through(layer, {"weight": nn.ReLU()}):
    ...     seen = layer.weight
    >>> torch.equal(layer.weight, seen), bool((layer.weight >= 0).all())
    (True, True)
    """
    known = {name: slot for name, slot in slots(model).items() if name in stages}
    assert len(known) == len(stages), f"unknown: {set(stages) - set(known)}"
    owners = [
        (module, attribute, stages[name])
        for name, slot in known.items()
        for module, attribute in slot.owners
    ]
    for module, attribute, stage in owners:
        attach_(module, attribute, stage)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, slot in known.items():
                slot.tensor.copy_(stages[name](slot.tensor))
        for module, attribute, stage in owners:
            detach_(module, attribute, stage)
