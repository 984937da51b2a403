"""Movement pruning: keep the weights that training moves away from zero."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import select
from secateurs.core.mask import Mask
from secateurs.core.within import Count, Part, Proportion, checked
from secateurs.evidence.weights import weights
from secateurs.methods.during import training
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.through import through
from secateurs.methods.where import check, counted, where
from secateurs.schedule.table import SCHEDULES


@checked
def movement(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Literal["uniform", "global"] = "uniform",
    schedule: str = "cubic",
    every: Count = 10,
    begin: Proportion = 0.1,
    until: Part = 0.75,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Fine-tune, and keep what has grown: cut by the sum of -gradient · weight over the steps.

    A weight behind the mask keeps its value; its score goes on, and it returns when the score
    has risen.

    Source: Sanh, Wolf & Rush 2020, arXiv:2005.07683, section 4 (hard movement): eq. 2 for the
    scores, a cubic schedule between a warm-up and a cool-down. Deviation: the scores add up
    without an optimizer of their own, as in the paper's derivation; within a layer their
    learning rate changes no order.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut, by the sum over its weights; all but `out_channel`.
        ranking: `uniform` keeps the same density everywhere, `global` ranks all together.
        schedule: how fast the target is approached.
        every: steps between updates of the mask.
        begin: share of the training before the first cut.
        until: share of the training after which the mask is final.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
    """
    check("schedule", schedule, SCHEDULES)
    check("ranking", ranking, ("uniform", "global"))
    train, steps = training(task, "movement pruning")
    model = copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    first, last = round(begin * steps), max(1, round(until * steps))

    def cut(progress: float) -> Mask:
        fraction = 1 - SCHEDULES[schedule](progress) * (1 - target.fraction)
        moved = {name: stage.score for name, stage in stages.items()}
        scores = {n: site.gather(moved).sum(dim=1) for n, site in place.sites.items()}
        quota = counted(place, scores, target.at(fraction), ranking)
        return select(place.sites, scores, quota)

    values = weights(model)
    stages = {n: Moving(values[n]) for site in place.sites.values() for n in site.params}
    cut(1.0)  # a target out of reach is refused before anything is trained
    with through(model, stages):

        def after_step(step: int) -> None:
            if first < step <= last and (step % every == 0 or step == last):
                for name, keep in cut((step - first) / max(1, last - first)).items():
                    stages[name].keep.copy_(keep)

        train(model, name="movement", after_step=after_step)
    return Pruned(model, Mask({n: stage.keep.bool() for n, stage in stages.items()}))


class Moving(nn.Module):
    """What a module sees is the weight times `keep`; a backward pass adds to `score`."""

    keep: Tensor
    score: Tensor

    def __init__(self, like: Tensor) -> None:
        """Begin with everything kept and nothing moved."""
        super().__init__()
        self.register_buffer("keep", torch.ones_like(like))
        self.register_buffer("score", torch.zeros_like(like))

    def forward(self, weight: Tensor) -> Tensor:
        """Zero what is masked."""
        return _Move.apply(weight, self.keep, self.score)  # type: ignore[no-any-return]


class _Move(torch.autograd.Function):
    """weight · keep; backward: score ← score - gradient · weight, masked or not."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, keep: Tensor, score: Tensor) -> Tensor:
        ctx.save_for_backward(weight, keep)
        ctx.score = score
        return weight * keep

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, keep = ctx.saved_tensors
        ctx.score.sub_(gradient * weight)
        return gradient * keep, None, None
