"""One-cycle progressive pruning: from new weights to a sparse network in a single training."""

from secateurs.core.within import Count, checked
from secateurs.methods.gradual import gradual
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking


@checked
def progressive(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "global",
    schedule: str = "one_cycle",
    every: Count = 1,
    fresh: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Train new weights and cut the smallest at every step, from the first to the last.

    No dense network is trained first, and no training follows.

    Source: Hubens et al. 2021, arXiv:2107.02086, section 3; with schedule `linear`, "Finding
    sparse subnetworks in one training cycle", 2026, arXiv:2606.12278. Deviation: a cut weight
    does not return. The paper's learning rate makes one cycle too: train with the schedule
    `one_cycle`.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut; all but `out_channel`, whose units cannot leave meanwhile.
        ranking: how the target is shared among the sites; see `magnitude`.
        schedule: how fast the target is approached.
        every: steps between cuts.
        fresh: whether to train from new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
    """
    return gradual(
        task,
        target,
        granularity=granularity,
        ranking=ranking,
        schedule=schedule,
        every=every,
        until=1.0,
        fresh=fresh,
        exclude=exclude,
    )
