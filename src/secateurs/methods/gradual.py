"""Gradual magnitude pruning: sparser step by step while training."""

import copy

from secateurs.core.cut import score, select
from secateurs.core.mask import Mask
from secateurs.core.within import Count, Part, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.methods.during import training
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check, quota, where
from secateurs.realise.masked import masked
from secateurs.schedule.table import SCHEDULES


@checked
def gradual(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "uniform",
    schedule: str = "cubic",
    every: Count = 100,
    until: Part = 0.75,
    fresh: bool = False,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the smallest weights a few at a time, from dense to the target, while training.

    Source: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1. Deviation: a cut weight does not
    return, because it is stored as zero.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut; all but `out_channel`, whose units cannot leave meanwhile.
        ranking: how the target is shared among the sites; see `magnitude`.
        schedule: how fast the target is approached.
        every: steps between cuts.
        until: share of the training after which the mask is final.
        fresh: whether to train from new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
    """
    check("schedule", schedule, SCHEDULES)
    train, steps = training(task, "gradual pruning")
    model = begin(task, fresh) if fresh else copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    last = max(1, round(until * steps))

    def cut(progress: float) -> Mask:
        fraction = 1 - SCHEDULES[schedule](progress) * (1 - target.fraction)
        scores = score(place.sites, l1, weight=weights(model))
        aim = target.at(fraction)
        return select(place.sites, scores, quota(place, scores, aim, ranking))

    with masked(model, cut(0.0)) as held:

        def after_step(step: int) -> None:
            if step <= last and (step % every == 0 or step == last):
                held.update(cut(step / last))

        train(model, name="gradual", after_step=after_step)
        mask = held.mask
    return Pruned(model, mask)
