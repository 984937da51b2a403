"""HRank and CHIP: cut the channels whose feature maps say least, or nothing of their own."""

import copy
from itertools import islice

from secateurs.core.cut import decide, scatter
from secateurs.core.errors import EvidenceError
from secateurs.core.within import Count, checked
from secateurs.evidence.maps import Statistic, independence, map_statistics, ranks
from secateurs.methods.channels import Share, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task


@checked
def hrank(
    task: Task,
    target: Target,
    *,
    batches: Count = 4,
    ranking: Share = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels whose feature maps have the lowest rank, then train the rest.

    Source: Lin et al. 2020, arXiv:2002.10179. Deviations: a channel of a residual stream gets
    the mean of its maps' ranks; all layers are cut at once, where the paper trains after each.
    Maps of few positions have few ranks, so ties, which keep the lower index, are many there.

    Args:
        task: model, data and training.
        target: how much stays.
        batches: of the task's batches to look at.
        ranking: `uniform` keeps the same fraction of every layer.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches, or some channels have no feature maps.
        BudgetError: the target cannot be met.
    """
    return _by_maps(task, target, ranks, batches, ranking, exclude)


@checked
def chip(
    task: Task,
    target: Target,
    *,
    batches: Count = 1,
    ranking: Share = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels whose feature maps others can best stand in for, then train the rest.

    Source: Sui et al. 2021, arXiv:2110.13981, its single-channel form. Deviations as of
    `hrank`. It takes one decomposition per channel and sample.

    Args:
        task: model, data and training.
        target: how much stays.
        batches: of the task's batches to look at.
        ranking: `uniform` keeps the same fraction of every layer.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches, or some channels have no feature maps.
        BudgetError: the target cannot be met.
    """
    return _by_maps(task, target, independence, batches, ranking, exclude)


def _by_maps(
    task: Task,
    target: Target,
    statistic: Statistic,
    batches: int,
    ranking: Share,
    exclude: tuple[str, ...],
) -> Pruned:
    if task.batches is None:
        raise EvidenceError(
            "feature maps are measured on data, and the task has no batches; "
            "pass Task(batches=...), or use a method that reads weights"
        )
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    seen = islice(task.batches(), batches)
    measured = map_statistics(place.graph, model, task.example, seen, statistic, list(place.sites))
    decision = decide(place.sites, measured, share(place, measured, target, ranking))
    return finish(task, model, scatter(place.sites, decision), place.graph)
