"""Running a model the way it is measured: in evaluation mode, without gradients."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError, ShapeError
from secateurs.core.example import Batch, call, map_tensors, split, tensors


@contextmanager
def evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the model in evaluation mode without gradients; every module's mode returns after."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        set_mode(model, training=False)
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training


def set_mode(model: nn.Module, *, training: bool) -> None:
    """Put `model` into training or evaluation mode; a traced program's mode is fixed."""
    # Exported programs refuse to be asked: what they do was settled when they were traced.
    with suppress(NotImplementedError):
        model.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's first parameter or buffer lives; the CPU when it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(nested: Any, device: torch.device) -> Any:
    """Move every tensor of a nested batch."""
    return map_tensors(lambda t: t.to(device, non_blocking=True), nested)


def inputs_of(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Any]:
    """Yield the inputs of batches, where the model is; labels, if there are any, are left out."""
    device = device_of(model)
    for batch in batches:
        yield to_device(split(batch)[0], device)


def labelled(batches: Iterable[Batch]) -> Iterator[tuple[Any, Tensor]]:
    """Yield inputs and labels of batches, as they come.

    Raises:
        PruneError: a batch has no labels, or several tensors of them.
    """
    for batch in batches:
        inputs, labels = split(batch)
        if len(labels) != 1 or not isinstance(labels[0], Tensor):
            raise PruneError(
                f"a batch, a {type(batch).__name__}, holds no tensor of labels behind its inputs; "
                "pass batches of (inputs, labels)"
            )
        yield inputs, labels[0]


def logits(output: Any) -> Tensor:
    """Return the class scores of a model's output: the tensor, its `.logits`, or its first tensor.

    Raises:
        ShapeError: the output holds no tensor.
    """
    if isinstance(output, Tensor):
        return output
    named = getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    found = tensors(output)
    if not found:
        raise ShapeError(
            f"the model returned a {type(output).__name__} without tensors; "
            "return the class scores, (batch, classes)"
        )
    return found[0]


def check_labels(scores: Tensor, labels: Tensor) -> None:
    """Refuse labels that the class scores cannot express, with both ranges.

    Raises:
        ShapeError: the batch sizes differ, or a label is out of range.
    """
    if scores.ndim < 2 or scores.shape[0] != labels.shape[0]:
        raise ShapeError(
            f"the model's output has shape {tuple(scores.shape)} for labels of shape "
            f"{tuple(labels.shape)}; it must be (batch, classes) with the same batch"
        )
    # Reading the range from an accelerator would wait for it at every step.
    if labels.numel() == 0 or labels.is_floating_point() or labels.device.type != "cpu":
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= scores.shape[1]:
        raise ShapeError(
            f"labels run from {low} to {high}, but the model scores {scores.shape[1]} classes "
            f"(0 to {scores.shape[1] - 1}); build the model with classes={high + 1}"
        )


def scored(model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the class scores of each batch and its labels, where the model is.

    To be iterated over within `evaluation`.

    Raises:
        ShapeError: the labels do not fit the scores.
        PruneError: a batch has no labels.
    """
    device = device_of(model)
    for inputs, y in labelled(batches):
        labels = y.to(device)
        scores = logits(call(model, to_device(inputs, device)))
        check_labels(scores, labels)
        yield scores, labels
