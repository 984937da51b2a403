"""SNIP: cut before training the connections that the loss does not feel."""

from torch.nn import functional as F

from secateurs.core.cut import score, select
from secateurs.criteria.taylor import taylor
from secateurs.evidence.gradients import gradients
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.start import batches_for, begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, counted, where


def snip(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "global",
    fresh: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Keep the weights with the largest |w ∂L/∂w| of an untrained network, then train.

    Source: Lee, Ajanthan & Torr 2019, arXiv:1810.02340, algorithm 1.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        ranking: `global` ranks all together; see `magnitude` for the others.
        fresh: whether to begin with new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches.
        BudgetError: the target cannot be met.
    """
    batches = batches_for(task, "SNIP")
    model = begin(task, fresh)
    place = where(model, task.example, granularity, exclude=exclude)
    found = gradients(model, batches(), F.cross_entropy)
    scores = score(place.sites, taylor, weight=weights(model), **found)
    mask = select(place.sites, scores, counted(place, scores, target, ranking))
    return finish(task, model, mask, place.graph)
