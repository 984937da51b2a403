"""Group-wise brain damage: one tap of one input channel, across all filters, is a unit."""

import copy
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.core.cut import score, select
from secateurs.core.errors import PruneError, ShapeError, StructureError
from secateurs.core.layers import plain_name
from secateurs.core.mask import Mask
from secateurs.core.site import Quota, Scores, Site, Sites
from secateurs.core.within import Amount, Count, Whole, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.granularity.grains import fibres
from secateurs.measure.accuracy import evaluate
from secateurs.methods.finish import held
from secateurs.methods.task import Pruned, Target, Task, Train
from secateurs.methods.where import Ranking, Where, check, named, quota
from secateurs.realise.fibres import thin as thin_layers
from secateurs.realise.masked import apply_mask, masked

Variant = Literal["gradual", "sparse", "fixed"]
Pattern = Literal["cross", "checkerboard"]
Thin = Literal["no", "faster", "all"]


@checked
def brain_damage(
    task: Task,
    target: Target,
    *,
    variant: Variant = "gradual",
    pattern: Pattern = "cross",
    shrink: Amount = 2e-4,
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    rounds: Count = 4,
    round_epochs: Whole = 1,
    tolerance: Amount = 0.01,
    thin: Thin = "no",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Make groups of weights vanish, so that convolutions become thinner matrix products.

    `fixed` imposes a pattern on every kernel; `sparse` trains under a group penalty, then
    cuts the groups of least norm; `gradual` cuts in rounds, between which the penalty
    works on, each as deep as accuracy allows, and the last to the target.

    Source: Lebedev & Lempitsky 2016, "Fast ConvNets using group-wise brain damage",
    arXiv:1506.02515, eq. 3 and section 3. Deviations: the penalty acts as a proximal step
    after each optimizer step, so groups become exactly zero; a step takes `shrink` of the
    mean norm of the layer's groups at the start, so one number serves all layers and batch
    norms; accuracy is watched on the task's own batches; where the paper's threshold
    follows accuracy for as long as it takes, here the last round meets the target.

    Args:
        task: model, data and training.
        target: density of groups; not used by `fixed`, whose pattern says it.
        variant: see above.
        pattern: of `fixed`: the middle row and column of a kernel, or every second tap.
            Kernels of one tap stay whole.
        shrink: what a step takes off each group's norm, as a fraction of the layer's mean.
        ranking: how the target is shared among layers.
        densities: NAME=FRACTION for weights that keep another density under `uniform`.
        rounds: of `gradual`.
        round_epochs: training before the cut of `sparse`, and in each round of `gradual`.
        tolerance: how much accuracy a round of `gradual` may cost, 0 to 1.
        thin: `all` puts the thinner products in place of the convolutions, `faster` only
            those that beat the best dense kernel when timed here; `no` leaves zeros.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: `sparse` or `gradual` without training, or `gradual` without data.
        BudgetError: the target is no density, or cannot be met.
    """
    check("variant", variant, get_args(Variant))
    check("pattern", pattern, get_args(Pattern))
    check("thin", thin, get_args(Thin))
    model = copy.deepcopy(task.model)
    sites = fibres(model, include=convolutions(model), exclude=exclude or None)
    if variant == "fixed":
        mask = Mask({name: patterned(model.get_parameter(name), pattern) for name in sites})
        held(task, model, mask, name="recover")
        return thinned(task, model, mask, thin)
    if task.train is None:
        raise PruneError(
            f"the {variant} variant trains under a penalty, and there is no training; "
            "give the cut 1 epoch of recovery or more, or use variant=fixed"
        )
    amounts = thresholds(model, sites, shrink)
    own = named(densities, sites)

    def goal(scores: Scores) -> Quota:
        return quota(Where(sites), scores, target, ranking, own)

    goal(score(sites, CRITERIA["l2"], weight=weights(model)))  # refuses before any training
    if variant == "sparse":
        _train(task.train, model, "sparse", round_epochs, Mask({}), sites, amounts)
        mask = _cut(model, sites, goal)
    else:
        mask = _gradually(task, model, sites, amounts, goal, rounds, round_epochs, tolerance)
    held(task, model, mask, name="recover")
    return thinned(task, model, mask, thin)


def thinned(task: Task, model: nn.Module, mask: Mask, how: Thin) -> Pruned:
    """Realise a mask of groups: thinner products where `how` says, zeros elsewhere."""
    if how == "no":
        return Pruned(model, mask)
    done = thin_layers(model, mask, task.example, only_faster=how == "faster")
    notes = [
        f"{name}: {layer.density:.0%} of the taps; the thinner product takes "
        f"{1e3 * layer.thin_s:.3g} ms, the best dense kernel {1e3 * layer.dense_s:.3g} ms"
        f"{'' if layer.thin else ', which stays'}"
        for name, layer in done.layers.items()
    ]
    left = {n: k for n, k in mask.items() if n not in done.layers or not done.layers[n].thin}
    return Pruned(done.model, Mask(left), notes=tuple(notes))


def convolutions(model: nn.Module) -> list[str]:
    """List the weights that are convolutions': a linear layer's groups are its inputs.

    Raises:
        StructureError: there are none.
    """
    found = [
        f"{path}.weight" if path else "weight"
        for path, module in model.named_modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    ]
    if not found:
        raise StructureError(
            f"{type(model).__name__} has no convolution whose taps could be grouped; cut the "
            "inputs of linear layers by --method lasso_channels"
        )
    return found


def group_norms(weight: Tensor, site: Site, name: str) -> Tensor:
    """Return the Euclidean norm of every group, (groups,): over filters, not over taps."""
    norms: Tensor = site.gather({name: weight}).norm(dim=1)
    return norms


def thresholds(model: nn.Module, sites: Sites, shrink: float) -> dict[str, float]:
    """Say how much of a group's norm one step takes, for every weight."""
    values = weights(model)
    return {n: shrink * float(group_norms(values[n], s, n).mean()) for n, s in sites.items()}


def shrink_groups(weight: Tensor, norms: Tensor, amount: float) -> Tensor:
    """Shrink groups towards zero, max(0, 1 − amount / norm) each: the proximal step of l2,1.

    Args:
        weight: any shape.
        norms: each entry's group norm, broadcastable to the weight.
        amount: of norm to take; groups below it become exactly zero.

    >>> shrink_groups(torch.tensor([3.0, 4.0]), torch.tensor(5.0), 1.0)
    tensor([2.4000, 3.2000])
    """
    share: Tensor = 1 - amount / norms.clamp(min=torch.finfo(norms.dtype).tiny)
    return weight * share.clamp(min=0)


def spread_norms(weight: Tensor, groups: int) -> Tensor:
    """Return the norm of each entry's group, broadcastable to a convolution's weight.

    A grouped convolution's filters share taps only within their group.
    """
    share = weight.view(groups, -1, *weight.shape[1:])
    norms = share.norm(dim=1, keepdim=True).expand(share.shape)
    spread: Tensor = norms.reshape(weight.shape)
    return spread


def patterned(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask of a pattern laid on every kernel: bool of the weight's shape.

    >>> patterned(torch.zeros(1, 1, 3, 3), "cross")[0, 0].int()
    tensor([[0, 1, 0],
            [1, 1, 1],
            [0, 1, 0]], dtype=torch.int32)
    """
    sizes = weight.shape[2:]
    if not sizes:
        raise ShapeError(f"a weight of shape {tuple(weight.shape)} has no kernel for a pattern")
    taps = torch.meshgrid(*(torch.arange(n) for n in sizes), indexing="ij")
    if pattern == "cross":
        # In one dimension everything but the middle row is the middle row.
        middle = [tap == n // 2 for tap, n in zip(taps, sizes, strict=True)]
        keep = torch.stack(middle).sum(dim=0) >= len(sizes) - 1
        keep = keep if len(sizes) > 1 else middle[0]
    else:
        keep = torch.stack(taps).sum(dim=0) % 2 == 0
    if keep.numel() == 1:
        keep = torch.ones_like(keep)
    return keep.expand(weight.shape).clone()


def _gradually(
    task: Task,
    model: nn.Module,
    sites: Sites,
    amounts: Mapping[str, float],
    goal: Callable[[Scores], Quota],
    rounds: int,
    epochs: int,
    tolerance: float,
) -> Mask:
    """Cut as deep as accuracy allows, train under the penalty, and again; end at the goal."""
    if task.batches is None or task.train is None:
        raise PruneError(
            "the gradual variant watches accuracy; pass Task(batches=...), or use variant=sparse"
        )
    batches = list(task.batches())
    wanted, mask = evaluate(model, batches).value - tolerance, Mask({})
    for number in range(rounds):
        _train(task.train, model, f"round-{number}", epochs, mask, sites, amounts)
        scores = score(sites, CRITERIA["l2"], weight=weights(model))
        full, end = {name: site.units for name, site in sites.items()}, goal(scores)
        best = 0.0
        for depth in (0.125, 0.25, 0.5, 0.75, 1.0):
            tried = select(sites, scores, between(full, end, depth, sites))
            if evaluate(apply_mask(model, tried & mask), batches).value < wanted:
                break
            best = depth
        mask = select(sites, scores, between(full, end, best, sites))
        task.say(f"round {number}: cut {best:.0%} of the way, density {mask.density:.3f}")
    return _cut(model, sites, goal)


def between(full: Quota, end: Quota, depth: float, sites: Sites) -> dict[str, int]:
    """Say how many units stay when a share of the way from all to the goal is gone."""
    return {name: full[name] - int(depth * (full[name] - end[name])) for name in sites}


def _cut(model: nn.Module, sites: Sites, goal: Callable[[Scores], Quota]) -> Mask:
    scores = score(sites, CRITERIA["l2"], weight=weights(model))
    return select(sites, scores, goal(scores))


def _train(
    train: Train,
    model: nn.Module,
    name: str,
    epochs: int,
    mask: Mask,
    sites: Sites,
    amounts: Mapping[str, float],
) -> None:
    """Train under the mask and, after every step, take a proximal step."""
    with masked(model, mask):
        stored = {n: p for n, p in _stored(model).items() if n in sites}
        groups = {n: _groups(model, n) for n in sites}

        def after_step(step: int) -> None:
            with torch.no_grad():
                for n, parameter in stored.items():
                    norms = spread_norms(parameter, groups[n])
                    parameter.copy_(shrink_groups(parameter, norms, amounts[n]))

        train(model, name=name, epochs=epochs, after_step=after_step)


def _stored(model: nn.Module) -> dict[str, nn.Parameter]:
    return {plain_name(name): parameter for name, parameter in model.named_parameters()}


def _groups(model: nn.Module, name: str) -> int:
    module = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return module.groups
