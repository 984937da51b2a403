"""Cut the units of least norm, then train the rest."""

import copy
from typing import Literal

from torch import nn

from secateurs.core.cut import score, select
from secateurs.core.mask import Mask
from secateurs.core.within import Count, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish, held
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check, named, quota, where
from secateurs.schedule.steps import densities as ramp
from secateurs.schedule.table import SCHEDULES

Norm = Literal["l1", "l2"]


@checked
def magnitude(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    norm: Norm = "l1",
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    rounds: Count = 1,
    schedule: str = "cubic",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the units of least norm in one or more rounds, training after each.

    Elements, rows and kernels are masked; `out_channel` removes channels physically, with
    everything coupled to them, and proves that the smaller model computes the same.

    Source: Han et al. 2015, arXiv:1506.02626, section 3 (elements); Li et al. 2017,
    arXiv:1608.08710, section 3.1 (channels, l1). Deviation: a channel's norm is taken over
    all that leaves with it, not over its filter alone.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        norm: which norm of a unit's weights ranks it.
        ranking: `uniform` keeps the same density everywhere, `global` ranks all together,
            `lamp` and `erk` choose the density of each layer.
        densities: NAME=FRACTION for sites that keep another density than the rest, under
            the `uniform` ranking.
        rounds: how many times to cut and train; the last meets the target.
        schedule: how fast the rounds approach it.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
        UnknownNameError: no such granularity, norm or schedule.
    """
    check("norm", norm, ("l1", "l2"))
    check("schedule", schedule, SCHEDULES)
    model: nn.Module = copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    mask = Mask({})
    own = named(densities, place.sites)
    for i, fraction in enumerate(ramp(SCHEDULES[schedule], rounds, target.fraction)):
        if i:
            held(task, model, mask, name=f"round-{i}")
        scores = score(place.sites, CRITERIA[norm], weight=weights(model))
        aim = target.at(fraction)
        mask = select(place.sites, scores, quota(place, scores, aim, ranking, own))
    return finish(task, model, mask, place.graph)
