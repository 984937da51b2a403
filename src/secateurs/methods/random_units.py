"""Cut at random: what every method has to beat."""

import copy

import torch

from secateurs.core.cut import score, select
from secateurs.criteria.random import random
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, quota, where


def random_units(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut units drawn at random, then train the rest.

    With `erk` it is a strong baseline (Liu et al. 2022, arXiv:2202.02643).

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        ranking: how the target is shared among the sites; see `magnitude`.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
    """
    model = copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    chance = random(torch.Generator().manual_seed(task.seed))
    scores = score(place.sites, chance, weight=weights(model))
    mask = select(place.sites, scores, quota(place, scores, target, ranking))
    return finish(task, model, mask, place.graph)
