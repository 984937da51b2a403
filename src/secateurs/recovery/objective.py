"""What a training step minimises."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from secateurs.core.example import call
from secateurs.measure.forward import check_labels, evaluation, logits

Objective = Callable[[nn.Module, Any, Tensor], tuple[Tensor, Tensor]]
"""(model, input, labels) → (mean loss, class scores)."""


def classify(label_smoothing: float = 0.0) -> Objective:
    """Return the cross-entropy objective.

    Source of smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    return supervised(nn.CrossEntropyLoss(label_smoothing=label_smoothing))


def supervised(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """Return the objective of a loss of your own, from (scores, labels) to a mean."""

    def objective(model: nn.Module, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits(call(model, x))
        check_labels(scores, y)
        return loss(scores, y), scores

    return objective


def distil(teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.9) -> Objective:
    """Return the objective of imitating a teacher and the labels at once.

    weight · T² · KL(teacher at T ‖ model at T) + (1 − weight) · cross-entropy. The teacher
    runs in evaluation mode on the model's device.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2; T² keeps the
    gradients' size as the temperature changes.
    """

    def objective(model: nn.Module, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        with evaluation(teacher):
            target = (logits(call(teacher, x)) / temperature).log_softmax(dim=1)
        scores = logits(call(model, x))
        check_labels(scores, y)
        soft = nn.functional.kl_div(
            (scores / temperature).log_softmax(dim=1), target, reduction="none", log_target=True
        )
        imitation = temperature**2 * soft.sum(dim=1).mean()
        return weight * imitation + (1 - weight) * nn.functional.cross_entropy(scores, y), scores

    return objective
