"""RigL and SET: train sparse from the start, dropping small weights and growing others."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import keep_top, score, select
from secateurs.core.layers import plain_name
from secateurs.core.mask import Mask
from secateurs.core.within import Count, Part, Proportion, checked
from secateurs.criteria.random import random
from secateurs.data.tensors import mix
from secateurs.evidence.weights import weights
from secateurs.methods.during import training
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check, quota, where
from secateurs.realise.masked import masked

Grow = Literal["gradient", "random"]


@checked
def rigl(
    task: Task,
    target: Target,
    *,
    grow: Grow = "gradient",
    ranking: Ranking = "erk",
    every: Count = 100,
    share: Proportion = 0.3,
    until: Part = 0.75,
    fresh: bool = True,
    scaled: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Begin with a random sparse network; while it trains, move its connections.

    Every so often a share of each layer's connections, those of least magnitude, is dropped,
    and as many others grow from zero, where the gradient is largest or at random.

    Source: Evci et al. 2020, arXiv:1911.11134, algorithm 1; with grow `random`, Mocanu et
    al. 2018, arXiv:1707.04780 (SET). Deviation: what has just been dropped does not grow
    again at once, momentum of connections that grow is kept, and new weights are `scaled`.

    Args:
        task: model, data and training.
        target: how many weights stay, at all times.
        grow: where connections grow.
        ranking: how the target is shared among the layers, once.
        every: steps between moves.
        share: of a layer's connections that move at first; falls by a cosine to none.
        until: share of the training after which nothing moves.
        fresh: whether to begin with new weights instead of the task's.
        scaled: whether new weights are divided by the root of their layer's density, so that
            outputs begin as large as the dense layer's; else signals die out in few layers
            where few weights stay (Evci et al. 2022, arXiv:2010.03533, section 3).
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
    """
    check("grow", grow, ("gradient", "random"))
    train, steps = training(task, "RigL")
    model = begin(task, fresh)
    place = where(model, task.example, "element", exclude=exclude)
    chance = random(torch.Generator().manual_seed(task.seed))
    scores = score(place.sites, chance, weight=weights(model))
    mask = select(place.sites, scores, quota(place, scores, target, ranking))
    if fresh and scaled:
        scale_(model, mask)
    last = until * steps
    with masked(model, mask, gradients="dense") as held:

        def after_step(step: int) -> None:
            if step % every or step >= last:
                return
            values, kept = weights(model), dict(held.mask)
            slopes = {plain_name(n): p.grad for n, p in model.named_parameters()}
            for i, name in enumerate(place.sites):
                wish = slopes[name]
                if grow == "random" or wish is None:
                    generator = torch.Generator().manual_seed(mix(task.seed, step, i))
                    wish = torch.rand(kept[name].shape, generator=generator).to(values[name])
                count = round(
                    share / 2 * (1 + math.cos(math.pi * step / last)) * int(kept[name].sum())
                )
                kept[name], grown = moved(values[name].abs(), wish.abs(), kept[name], count)
                with torch.no_grad():
                    values[name][grown] = 0
            held.update(kept)

        train(model, name="sparse", after_step=after_step)
        mask = held.mask
    return Pruned(model, mask)


def scale_(model: nn.Module, mask: Mask) -> None:
    """Divide every masked weight by the root of its density, in place; empty ones stay."""
    values = weights(model)
    with torch.no_grad():
        for name, kept in mask.items():
            values[name].div_(kept.double().mean().sqrt().clamp(min=1e-12))


def moved(size: Tensor, wish: Tensor, kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Drop the `count` smallest kept and grow the most wished others: → (kept, grown), bool.

    >>> moved(torch.tensor([3., 1., 0., 0.]), torch.tensor([0., 0., 1., 2.]),
    ...       torch.tensor([True, True, False, False]), 1)
    (tensor([ True, False, False,  True]), tensor([False, False, False,  True]))
    """
    count = min(count, int((~kept).sum()))
    stay = torch.where(kept, size, -1.0).flatten()
    stays = keep_top(stay, int(kept.sum()) - count).view_as(kept)
    want = torch.where(kept, -1.0, wish).flatten()
    grown = keep_top(want, count).view_as(kept)
    return stays | grown, grown
