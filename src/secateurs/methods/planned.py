"""Cut what a saved plan says."""

import copy

from secateurs.core.cut import score, select
from secateurs.core.errors import PruneError
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.magnitude import Norm
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import REMOVED, check, where
from secateurs.realise.plan import check_plan, load_plan


def planned(task: Task, target: Target, *, plan: str = "", norm: Norm = "l2") -> Pruned:
    """Remove as many channels of every bucket as a saved plan says, those of least norm first.

    `secateurs plan MODEL --density 0.5 --out plan.json` writes a plan; its numbers may be
    edited. The plan says how much stays, so `target` is not used.

    Args:
        task: model, data and training.
        target: not used.
        plan: path of the plan.
        norm: which norm of a unit's weights ranks it.

    Raises:
        FileError: there is no such plan.
        StructureError: it was made for another model.
        BudgetError: a line keeps none, too many, or unequal numbers per pool.
    """
    check("norm", norm, ("l1", "l2"))
    if not plan:
        raise PruneError("method 'planned' needs a plan; pass --plan FILE")
    chosen = load_plan(plan)
    model = copy.deepcopy(task.model)
    place = where(model, task.example, REMOVED)
    assert place.graph is not None
    check_plan(chosen, place.graph)
    scores = score(place.sites, CRITERIA[norm], weight=weights(model))
    mask = select(place.sites, scores, {line.bucket: line.keep for line in chosen.lines})
    return finish(task, model, mask, place.graph)
