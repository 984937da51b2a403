"""Learning both weights and connections: cut small weights layer by layer, retrain, repeat."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import score, select
from secateurs.core.errors import EvidenceError
from secateurs.core.layers import layers
from secateurs.core.mask import Mask
from secateurs.core.site import Quota
from secateurs.core.within import Amount, Count, Within, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.graph.trace import trace
from secateurs.methods.dropout import dropout_rates, thinned
from secateurs.methods.during import numbers
from secateurs.methods.neurons import without_dead
from secateurs.methods.pictures import hung
from secateurs.methods.sensitivity import scan, spread, tolerated
from secateurs.methods.sensitivity_plot import draw
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Where, check, named, quota, where
from secateurs.realise.compact import compact
from secateurs.realise.masked import masked
from secateurs.recovery.batchnorm import recalibrate_
from secateurs.schedule.curves import cubic
from secateurs.schedule.steps import densities as ramp

Rule = Literal["sensitivity", "density", "quality"]
Spread = Literal["dense", "kept", "all"]
Penalty = Literal["l2", "l1"]

PLOT = "curves.svg"
CAPTION = "Sensitivity: accuracy as each layer alone is cut, before any training."
"""The sensitivity scan as a picture, beside its numbers."""


@checked
def han(
    task: Task,
    target: Target,
    *,
    rule: Rule = "sensitivity",
    densities: tuple[str, ...] = (),
    quality: Amount = 1.0,
    qualities: tuple[str, ...] = (),
    std: Spread = "dense",
    rounds: Count = 2,
    penalty: Penalty = "l2",
    strength: Amount = 0.0,
    alternate: bool = False,
    neurons: bool = False,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the small weights of each layer, retrain the rest from where they are, and repeat.

    Dropout is made weaker as connections go, D · √(left / before), while it retrains.

    Source: Han et al. 2015, arXiv:1506.02626, section 3. Deviation: the `sensitivity` rule
    reads each layer's density off its own scan, such that all cost the same loss and the
    target is met exactly; the paper chose thresholds from the same curves by hand.

    Args:
        task: model, data and training.
        target: how many weights stay, but for the `quality` rule, which sets its own.
        rule: `sensitivity` scans every layer, `density` takes the same of each, or as
            `densities` say; `quality` cuts |w| < quality · standard deviation, as the paper.
        densities: NAME=FRACTION for weights that keep another density under `density`.
        quality: standard deviations below which a weight goes.
        qualities: NAME=NUMBER for weights with another quality.
        std: of the `dense` model's layer, of the weights `kept` so far, or of `all`, zeros
            included, which in later rounds lowers the threshold.
        rounds: how many times to cut and retrain; thresholds are applied anew in each.
        penalty: what `strength` adds to the loss while retraining; beside weight decay.
        strength: of the sum of |w| (l1), or of half the sum of w² (l2).
        alternate: retrain linear layers with convolutions fixed, then the reverse.
        neurons: remove neurons left without inputs or outputs, physically, at the end.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: `sensitivity`, and the task has no batches to scan on.
        BudgetError: the target cannot be met.
    """
    check("rule", rule, ("sensitivity", "density", "quality"))
    check("std", std, ("dense", "kept", "all"))
    check("penalty", penalty, ("l2", "l1"))
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "element", exclude=exclude)
    graph = trace(model, task.example) if neurons else None
    share, pictures = _shares(task, target, place, rule, named(densities, place.sites))
    other = numbers(qualities, place.sites, what="quality", within=Within(0))
    q = dict.fromkeys(place.sites, quality) | other
    dense = {name: spread(weights(model)[name], None) for name in place.sites}
    mask = Mask({})
    for i, fraction in enumerate(ramp(cubic, rounds, target.fraction), start=1):
        if rule == "quality":
            mask = _above(model, q, dense, std, mask)
        else:
            scores = score(place.sites, l1, weight=weights(model))
            mask = select(place.sites, scores, share(target.at(fraction)))
        if graph is not None and i == rounds:
            mask = without_dead(model, graph, mask)
        name = "recover" if i == rounds else f"round-{i}"
        _retrain(task, model, mask, name, _penalty(penalty, strength), alternate)
    if graph is None:
        return Pruned(model, mask, pictures=pictures)
    small = compact(model, graph, mask, task.example)
    return Pruned(small.model, small.mask, graph, small, pictures=pictures)


def thresholds(
    model: nn.Module, quality: dict[str, float], dense: dict[str, float], std: Spread, mask: Mask
) -> dict[str, float]:
    """Magnitude below which a weight goes, by name: quality · standard deviation."""
    found = {}
    for name, q in quality.items():
        keep = mask.get(name) if std == "kept" else None
        own = dense[name] if std == "dense" else spread(weights(model)[name], keep)
        found[name] = q * own
    return found


def _above(
    model: nn.Module, quality: dict[str, float], dense: dict[str, float], std: Spread, mask: Mask
) -> Mask:
    at = thresholds(model, quality, dense, std, mask)
    above = Mask({name: weights(model)[name].abs() >= t for name, t in at.items()})
    return above & mask


def _shares(
    task: Task, target: Target, place: Where, rule: Rule, own: dict[str, float]
) -> tuple[Callable[[Target], Quota], dict[str, str]]:
    """Return how a target is shared among the layers, and the picture of why."""
    scores = score(place.sites, l1, weight=weights(task.model))
    if rule != "sensitivity":
        return lambda target: quota(place, scores, target, "uniform", own), {}
    if task.batches is None:
        raise EvidenceError(
            "sensitivity is measured on data; pass Task(batches=...), or use the rule density"
        )
    target.refuse_multiples("the sensitivity of layers says how many weights stay")
    folder = task.folder / "sensitivity" if task.folder is not None else None
    curves = scan(task.model, place.sites, scores, task.batches, folder=folder, say=task.say)
    pictures = {}
    if folder is not None:
        what = "sensitivity of every layer"
        pictures = hung(task, folder / PLOT, draw(curves), what=what, caption=CAPTION)
    return lambda target: tolerated(place.sites, curves, target.fraction), pictures


def _penalty(kind: Penalty, strength: float) -> Callable[[nn.Module], Tensor] | None:
    if not strength:
        return None

    def penalty(model: nn.Module) -> Tensor:
        sizes = [
            p.abs().sum() if kind == "l1" else p.square().sum() / 2
            for p in model.parameters()
            if p.dim() > 1
        ]
        return strength * torch.stack(sizes).sum()

    return penalty


def _retrain(
    task: Task,
    model: nn.Module,
    mask: Mask,
    name: str,
    penalty: Callable[[nn.Module], Tensor] | None,
    alternate: bool,
) -> None:
    with masked(model, mask), thinned(model, dropout_rates(model, mask, task.example)):
        if task.batches is not None and task.repair != "none":
            recalibrate_(model, task.batches())
        if task.train is None:
            return
        if not alternate:
            task.train(model, name=name, penalty=penalty)
            return
        for part in ("linear", "conv"):
            with _only(model, part):
                task.train(model, name=f"{name}-{part}", penalty=penalty)


@contextmanager
def _only(model: nn.Module, part: str) -> Iterator[None]:
    """Let only linear layers, or all but those, learn until the block ends."""
    linear = {name.rpartition(".")[0] for name, x in layers(model).items() if not x.kernel}
    before = {p: p.requires_grad for p in model.parameters()}
    try:
        for path, module in model.named_modules():
            owner = path.partition(".parametrizations")[0]
            for p in module.parameters(recurse=False):
                p.requires_grad_(before[p] and (owner in linear) == (part == "linear"))
        yield
    finally:
        for p, learns in before.items():
            p.requires_grad_(learns)
