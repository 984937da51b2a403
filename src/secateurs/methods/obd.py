"""Optimal Brain Damage: cut what the curvature says the loss will miss least."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.core.cut import score, select
from secateurs.core.errors import EvidenceError
from secateurs.core.mask import Mask
from secateurs.core.site import Scores, Sites
from secateurs.core.within import Count, checked
from secateurs.criteria.curvature import obd as saliency
from secateurs.data.tensors import mix
from secateurs.evidence.gauss_newton import gauss_newton
from secateurs.evidence.recursion import recursion
from secateurs.evidence.weights import weights
from secateurs.measure.forward import labelled
from secateurs.methods.finish import finish, held
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check, counted, where
from secateurs.schedule.steps import densities
from secateurs.schedule.table import SCHEDULES

Curvature = Literal["levenberg", "exact", "sampled"]


@checked
def obd(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    curvature: Curvature = "levenberg",
    ranking: Ranking = "global",
    rounds: Count = 3,
    schedule: str = "cubic",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the units of least saliency h w² / 2, train, measure h anew, and cut again.

    Saliencies are in units of the loss, so all layers are ranked together. The curvature of
    a network that classifies its training data without doubt vanishes; then small steps
    with training between them do better than one, which `rounds` are for.

    Source: LeCun, Denker & Solla 1989, "Optimal Brain Damage", recipe of section 2.2.
    Deviation: saliencies of larger units are sums over their weights, as the diagonal
    assumption says; the loss is the cross-entropy of today's classifiers.

    Args:
        task: model, data and training.
        target: how much stays.
        granularity: what is cut.
        curvature: `levenberg` and `exact` go through the network once for each batch, the
            second with the terms that may make h negative; `sampled` takes any model.
        ranking: `global` ranks all together; see `magnitude` for the others.
        rounds: how many times to cut and train; the last meets the target.
        schedule: how fast the rounds approach it.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches to measure with.
        StructureError: an operation of the model has no rule for `levenberg` or `exact`.
        BudgetError: the target cannot be met.
    """
    check("curvature", curvature, ("levenberg", "exact", "sampled"))
    check("schedule", schedule, SCHEDULES)
    model = copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    mask = Mask({})
    for i, fraction in enumerate(densities(SCHEDULES[schedule], rounds, target.fraction)):
        if i:
            held(task, model, mask, name=f"round-{i}")
        h = measured(task, model, curvature, mix(task.seed, i))
        scores = score(place.sites, saliency, weight=weights(model), curvature=h)
        scores = below(scores, place.sites, mask)
        keep = counted(place, scores, target.at(fraction), ranking)
        mask = select(place.sites, scores, keep)
    return finish(task, model, mask, place.graph)


def measured(task: Task, model: nn.Module, how: Curvature, seed: int) -> dict[str, Tensor]:
    """Measure the curvature of the task's loss by parameter name.

    Raises:
        EvidenceError: the task has no batches.
        PruneError: they have no labels.
        StructureError: an operation has no rule.
    """
    if task.batches is None:
        raise EvidenceError("curvature is measured on data; pass Task(batches=...)")
    if how == "sampled":
        generator = torch.Generator().manual_seed(seed)
        return gauss_newton(model, task.batches(), generator=generator)
    return recursion(model, labelled(task.batches()), F.cross_entropy, form=how)


def below(scores: Scores, sites: Sites, mask: Mask) -> Scores:
    """Put units that are cut already below all others of their site, so that they stay cut."""
    ranked = {}
    for name, site in sites.items():
        ranked[name] = scores[name]
        if set(site.params) & set(mask):
            whole = {p: mask[p].float() for p in site.params if p in mask}
            gone = ~site.gather(whole).any(dim=1)
            ranked[name] = torch.where(gone, scores[name].min() - 1, scores[name])
    return ranked
