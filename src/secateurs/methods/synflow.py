"""SynFlow: cut before training, without data, and without cutting any layer off."""

import copy

import torch
from torch import Tensor, nn

from secateurs.core.cut import score, select
from secateurs.core.example import map_tensors
from secateurs.core.mask import Mask
from secateurs.core.site import Scores
from secateurs.core.within import Count, checked
from secateurs.criteria.taylor import taylor
from secateurs.evidence.gradients import gradients
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, counted, where
from secateurs.realise.masked import apply_mask_
from secateurs.schedule.steps import densities, geometric


@checked
def synflow(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "global",
    rounds: Count = 100,
    fresh: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Keep the weights that carry the most of an all-ones signal through |weights|, then train.

    Source: Tanaka et al. 2020, arXiv:2006.05467, algorithm 1.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        ranking: `global` ranks all together; see `magnitude` for the others.
        rounds: how many cuts, each keeping the same share of what is left.
        fresh: whether to begin with new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
    """
    model = begin(task, fresh)
    place = where(model, task.example, granularity, exclude=exclude)
    positive = absolute(model)
    ones = map_tensors(
        lambda t: torch.ones_like(t[:1], dtype=torch.float64) if t.is_floating_point() else t[:1],
        task.example,
    )

    def flow() -> Scores:
        found = gradients(positive, [(ones,)], _total)
        return score(place.sites, taylor, weight=weights(positive), **found)

    mask = Mask({})
    schedule = geometric(target.fraction) if target.fraction < 1 else float
    for fraction in densities(schedule, rounds, target.fraction):
        scores = flow()
        quota = counted(place, scores, target.at(fraction), ranking)
        mask = select(place.sites, scores, quota)
        apply_mask_(positive, mask)
    return finish(task, model, mask, place.graph)


def absolute(model: nn.Module) -> nn.Module:
    """Copy a model with the absolute values of all its numbers, in double precision."""
    positive = copy.deepcopy(model).double()
    with torch.no_grad():
        for value in positive.state_dict().values():
            value.abs_()
    return positive


def _total(output: Tensor) -> Tensor:
    return output.sum()
