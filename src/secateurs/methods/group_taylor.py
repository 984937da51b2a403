"""Group Taylor: cut the channels whose loss, to first order, moves the loss least."""

import copy
from typing import Literal

from torch.nn import functional as F

from secateurs.core.cut import decide, scatter, score
from secateurs.criteria.taylor import taylor, taylor_gate
from secateurs.evidence.gradients import gradients
from secateurs.evidence.weights import weights
from secateurs.methods.channels import Share, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.start import batches_for
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check

Form = Literal["weights", "gate"]
_FORMS = {"weights": taylor, "gate": taylor_gate}


def group_taylor(
    task: Task,
    target: Target,
    *,
    form: Form = "weights",
    ranking: Share = "global",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels with the least |w · ∂L/∂w| over all that leaves with them.

    Source: Molchanov et al. 2019, arXiv:1906.10771, section 3.1, over coupled groups as in
    Fang et al. 2023, arXiv:2301.12900. Deviation: all channels are cut at once, where the
    paper cuts a few between minibatches of training.

    Args:
        task: model, labelled data and training.
        target: how much stays.
        form: `weights` adds |w · ∂L/∂w| up; `gate` squares the sum, as if one gate
            multiplied all weights of the group, so that signs cancel.
        ranking: `global` ranks all channels together, `isomorphic` those of one topology,
            `uniform` keeps the same fraction of every layer.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches.
        BudgetError: the target cannot be met.
    """
    check("form", form, _FORMS)
    batches = batches_for(task, "group Taylor")
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    found = gradients(model, batches(), F.cross_entropy)
    scores = score(place.sites, _FORMS[form], weight=weights(model), **found)
    decision = decide(place.sites, scores, share(place, scores, target, ranking))
    return finish(task, model, scatter(place.sites, decision), place.graph)
