"""How often a classifier is right."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.measure.forward import device_of, evaluation, scored

Batches = Iterable[tuple[Any, Tensor]]
"""Anything that can be iterated over again and again, giving (input, labels)."""


@dataclass(frozen=True)
class Accuracy:
    """What a classifier got right on one set of examples."""

    correct: int
    total: int
    loss: float
    """Mean over the examples, in units of the loss."""

    @property
    def value(self) -> float:
        """The fraction that is right, 0 to 1."""
        return self.correct / self.total

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the fraction: √(p (1 − p) / n).

        >>> Accuracy(90, 100, 0.0).standard_error
        0.03
        """
        p = self.value
        return float((p * (1 - p) / self.total) ** 0.5)

    def __str__(self) -> str:
        """Show the percentage with its standard error."""
        return f"{100 * self.value:.2f} ± {100 * self.standard_error:.2f} %"


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Accuracy:
    """Count the right answers of a model in evaluation mode; its modes return afterwards.

    Args:
        model: returns class scores, (batch, classes, ...).
        batches: (input, labels) pairs; moved to the model's device.
        loss: from (scores, labels) to a mean; cross-entropy by default.

    Raises:
        ShapeError: the labels do not fit the scores.
        PruneError: there are no examples, or no labels.
    """
    measure = loss or nn.functional.cross_entropy
    device = device_of(model)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    summed = torch.zeros((), dtype=torch.float64, device=device)
    total = 0
    with evaluation(model):
        for scores, labels in scored(model, batches):
            correct += (scores.argmax(dim=1) == labels).sum()
            summed += measure(scores, labels).double() * labels.numel()
            total += labels.numel()
    if total == 0:
        raise PruneError("cannot measure accuracy on no examples; the loader gave no batches")
    return Accuracy(int(correct), total, float(summed) / total)
