"""Dynamic network surgery: cut small weights while training, and splice back those that grow."""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import keep_top, score
from secateurs.core.site import Quota, Sites
from secateurs.core.within import Amount, Number, Proportion, Within, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.methods.during import chance, numbers, training
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check, named, quota, where
from secateurs.realise.masked import masked
from secateurs.schedule.curves import cubic

Rule = Literal["density", "moments"]

CUT, SPLICE = 0.9, 1.1
"""The two thresholds, as factors of their centre."""


@checked
def dns(
    task: Task,
    target: Target,
    *,
    rule: Rule = "density",
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    reach: Proportion = 0.5,
    c: Number = 3.0,
    cs: tuple[str, ...] = (),
    gamma: Amount = 1e-4,
    power: Amount = 1.0,
    stop: Proportion = 0.8,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut weights and biases below a threshold while all of them go on learning.

    A weight that is cut keeps its value and its gradient behind the mask, and returns when
    it has grown past a second, higher threshold. After the surgery the mask is frozen and
    the training ends as it began.

    Source: Guo, Yao & Chen 2016, arXiv:1608.04493, eq. 3 and 4, algorithm 1; the factors 0.9
    and 1.1 and the constants are those of the authors' code. Deviation: the `density` rule
    is ours: at every update, the centre of the thresholds is the one that leaves exactly
    the wanted number of weights.

    Args:
        task: model, data and training.
        target: how many weights stay, under the `density` rule; biases share the threshold
            of their layer and come on top.
        rule: where the thresholds come from; `moments` is the paper's, mean + c · standard
            deviation of a layer's magnitudes before the surgery, and does not know a target.
        ranking: how the target is shared among the layers, by the dense model's weights.
        densities: NAME=FRACTION for weights that keep another density under `uniform`.
        reach: share of the surgery after which the density is reached; 0 cuts at once.
        c: standard deviations above the mean, under `moments`.
        cs: NAME=NUMBER for weights with another c.
        gamma: how fast updates become rare: a layer's mask is updated at step t with
            probability (1 + gamma · t) ** -power.
        power: see `gamma`.
        stop: share of the training after which the mask is frozen.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
    """
    check("rule", rule, ("density", "moments"))
    train, steps = training(task, "dynamic network surgery")
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "element", exclude=exclude)
    layers = together(model, place.sites)
    per_layer = dict.fromkeys(layers, c) | numbers(cs, layers, what="c", within=Within())
    last = round(stop * steps)
    keep: Quota = {}
    centres: dict[str, float] = {}
    if rule == "moments":
        centres = moments(weights(model), layers, per_layer)
    else:
        scores = score(place.sites, l1, weight=weights(model))
        keep = quota(place, scores, target, ranking, named(densities, place.sites))

    def places(name: str, units: int, step: int) -> int:
        done = cubic(min(1.0, step / (reach * last))) if reach * last else 1.0
        return round(units - done * (units - keep[name]))

    members = [name for names in layers.values() for name in names]
    whole = {n: torch.ones_like(weights(model)[n], dtype=torch.bool) for n in members}
    with masked(model, whole, gradients="dense") as held:

        def update(step: int) -> None:
            if step > last:
                return
            often = (1 + gamma * step) ** -power
            kept, values, changed = held.mask, weights(model), {}
            for i, (name, names) in enumerate(layers.items()):
                if step < last and chance(task.seed, step, i) >= often:
                    continue
                size = values[name].abs()
                if keep:
                    wanted = places(name, size.numel(), step)
                    guess = centres.get(name, 0.0)
                    changed[name], centres[name] = most(size, kept[name], wanted, guess)
                else:
                    changed[name] = hysteresis(size, kept[name], centres[name])
                for n in names[1:]:
                    changed[n] = hysteresis(values[n].abs(), kept[n], centres[name])
            if changed:
                held.update({**kept, **changed})

        update(0)
        train(model, name="surgery", after_step=update)
        mask = held.mask
    return Pruned(model, mask)


def hysteresis(size: Tensor, kept: Tensor, centre: Tensor | float) -> Tensor:
    """Cut below 0.9 · centre, splice from 1.1 · centre, leave the rest as it was: → bool.

    >>> hysteresis(torch.tensor([0.8, 1.0, 1.0, 1.2]), torch.tensor([True, True, False, False]), 1)
    tensor([False,  True, False,  True])

    Source: Guo et al. 2016, eq. 3.
    """
    return (size >= SPLICE * centre) | (kept & (size >= CUT * centre))


def most(size: Tensor, kept: Tensor, keep: int, guess: float = 0.0) -> tuple[Tensor, float]:
    """Apply the thresholds whose centre leaves exactly `keep` weights: → (bool, centre).

    A `guess` of the centre, however wrong, changes the time this takes and not the result.

    >>> most(torch.tensor([1.0, 1.1, 3.0]), torch.tensor([True, False, False]), 2)[0]
    tensor([ True, False,  True])
    """
    # A kept weight stays from 0.9 times the centre, another comes from 1.1 times: divided by
    # these, both are compared with the centre itself.
    against = (size / torch.where(kept, CUT, SPLICE)).flatten()
    near = (against >= CUT * guess).nonzero().squeeze(1)
    if len(near) < keep:
        near = torch.arange(against.numel(), device=against.device)
    stays = near[keep_top(against[near], keep)]
    marked = torch.zeros_like(kept, dtype=torch.bool)
    marked.view(-1)[stays] = True
    return marked, float(against[stays].min())


def moments(
    values: Mapping[str, Tensor],
    layers: Mapping[str, tuple[str, ...]],
    c: Mapping[str, float],
) -> dict[str, float]:
    """Centre of each layer's thresholds: mean + c · standard deviation of its magnitudes.

    Over the weights and biases that are not zero; never below zero.
    """
    centres = {}
    for name, members in layers.items():
        sizes = torch.cat([values[m].abs().flatten() for m in members])
        sizes = sizes[sizes > 0].double()
        spread = sizes.std(correction=0) if len(sizes) else 0.0
        mean = sizes.mean() if len(sizes) else 0.0
        centres[name] = max(0.0, float(mean + c[name] * spread))
    return centres


def together(model: nn.Module, sites: Sites) -> dict[str, tuple[str, ...]]:
    """List what shares a threshold: a weight and its bias, by the weight's name.

    >>> layer = nn.Linear(2, 1)
    >>> together(layer, {"weight": None})
    {'weight': ('weight', 'bias')}
    """
    known = weights(model)
    found: dict[str, tuple[str, ...]] = {}
    for name in sites:
        bias = name.removesuffix("weight") + "bias" if name.endswith("weight") else ""
        found[name] = (name, bias) if bias in known else (name,)
    return found
