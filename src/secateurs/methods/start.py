"""What methods share that prune before training: fresh weights, and one cut."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from secateurs.core.errors import EvidenceError
from secateurs.measure.forward import labelled
from secateurs.methods.task import Task
from secateurs.recovery.rewind import reinitialise_


def begin(task: Task, fresh: bool) -> nn.Module:
    """Copy the task's model, with all weights drawn anew if `fresh`.

    Raises:
        StructureError: a module cannot draw its weights anew.
    """
    model = copy.deepcopy(task.model)
    if fresh:
        reinitialise_(model, task.seed)
    return model


def batches_for(task: Task, method: str) -> Callable[[], Iterable[Any]]:
    """Return the task's batches, which raise `PruneError` when they turn out to have no labels.

    Raises:
        EvidenceError: there are none.
    """
    batches = task.batches
    if batches is None:
        raise EvidenceError(f"{method} measures gradients on data; pass Task(batches=...)")
    return lambda: labelled(batches())
