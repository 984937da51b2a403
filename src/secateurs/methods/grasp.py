"""GraSP: cut before training what the flow of gradients does without."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.core.cut import score, select
from secateurs.core.evidence import Evidence
from secateurs.core.layers import plain_name
from secateurs.core.within import Positive, checked
from secateurs.evidence.batches import evaluating, placed
from secateurs.evidence.gradients import gradients, tracked
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.start import batches_for, begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, counted, where


@checked
def grasp(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "global",
    temperature: Positive = 200.0,
    fresh: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Keep the weights whose removal would lower the gradient's norm most, then train.

    Source: Wang, Zhang & Grosse 2020, arXiv:2002.07376, eq. 8 and algorithm 2. Deviation:
    batch norms use their stored statistics while the gradients are measured.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        ranking: `global` ranks all together; see `magnitude` for the others.
        temperature: what the class scores are divided by while measuring.
        fresh: whether to begin with new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches.
        BudgetError: the target cannot be met.
    """
    batches = batches_for(task, "GraSP")
    model = begin(task, fresh)
    place = where(model, task.example, granularity, exclude=exclude)
    flow = hessian_gradient(model, batches(), temperature)
    scores = score(place.sites, preserved, weight=weights(model), hessian_gradient=flow)
    mask = select(place.sites, scores, counted(place, scores, target, ranking))
    return finish(task, model, mask, place.graph)


def preserved(e: Evidence) -> Tensor:
    """Half of how much gᵀg falls when a unit is removed, to first order, (units,): w · (H g)."""
    return (e.weight * e["hessian_gradient"]).sum(dim=1)


def hessian_gradient(
    model: nn.Module, batches: Iterable[Any], temperature: float = 1.0
) -> dict[str, Tensor]:
    """H g by parameter name, for the gradient g over all batches together."""
    batches = list(batches)

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output / temperature, labels)

    mean = gradients(model, batches, loss)["gradient"]
    sums: dict[str, Tensor] = {}
    with evaluating(model), torch.enable_grad():
        for number, (inputs, labels) in enumerate(placed(model, batches), start=1):
            parameters, value = tracked(model, inputs, labels, loss, number)
            known = list(parameters.values())
            found = torch.autograd.grad(
                value, known, create_graph=True, allow_unused=True, materialize_grads=True
            )
            slopes = [
                (g * mean[plain_name(name)]).sum()
                for name, g in zip(parameters, found, strict=True)
            ]
            bends = torch.autograd.grad(
                torch.stack(slopes).sum(), known, allow_unused=True, materialize_grads=True
            )
            for name, bend in zip(parameters, bends, strict=True):
                sums[name] = sums.get(name, 0) + bend / len(batches)
    return {plain_name(name): total for name, total in sums.items()}
