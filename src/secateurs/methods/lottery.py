"""The lottery ticket: train, cut, go back to the first weights, and train what is left."""

from secateurs.core.cut import score, select
from secateurs.core.errors import PruneError
from secateurs.core.mask import Mask
from secateurs.core.within import Count, Whole, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, quota, where
from secateurs.realise.masked import masked
from secateurs.recovery.rewind import rewind_, snapshot
from secateurs.schedule.steps import densities, geometric


@checked
def lottery(
    task: Task,
    target: Target,
    *,
    ranking: Ranking = "uniform",
    rounds: Count = 5,
    late: Whole = 0,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Find the smallest weights by training, cut them, rewind the rest, and repeat.

    Begins with new weights; the trained ones of the task are not used. Trains `rounds` + 1
    times.

    Source: Frankle & Carbin 2019, arXiv:1803.03635, strategy 1; `late` is that of Frankle
    et al. 2020, arXiv:1912.05671. Deviation: after rewinding, the learning rate begins its
    whole schedule again, also when `late` is not 0.

    Args:
        task: model, data and training.
        target: how many weights stay.
        ranking: how the target is shared among the layers; see `magnitude`.
        rounds: how many cuts, each keeping the same share of what is left.
        late: epochs of training before the weights to go back to are taken.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train.
        StructureError: a module cannot draw its weights anew.
        BudgetError: the target cannot be met.
    """
    if task.train is None:
        raise PruneError(
            "a lottery ticket is found by training, and there is none; "
            "give the cut 1 epoch of recovery or more"
        )
    model = begin(task, fresh=True)
    place = where(model, task.example, "element", exclude=exclude)
    if late:
        task.train(model, name="early", epochs=late)
    first = snapshot(model)
    task.train(model, name="dense")
    mask = Mask({})
    schedule = geometric(target.fraction) if target.fraction < 1 else float
    for i, fraction in enumerate(densities(schedule, rounds, target.fraction), start=1):
        scores = score(place.sites, l1, weight=weights(model))
        aim = target.at(fraction)
        mask = select(place.sites, scores, quota(place, scores, aim, ranking))
        rewind_(model, first)
        with masked(model, mask):
            task.train(model, name=f"ticket-{i}")
    return Pruned(model, mask)
