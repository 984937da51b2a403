"""Intra-kernel strided sparsity: what stays of every convolution is a smaller dense product."""

import copy
from fractions import Fraction
from math import prod
from typing import Literal

from torch import nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import BudgetError, StructureError
from secateurs.core.layers import layers
from secateurs.core.site import Decision, Site
from secateurs.core.within import Count, Positive, Proportion, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.granularity.grains import strided as offsets
from secateurs.methods.finish import finish
from secateurs.methods.particles import found
from secateurs.methods.particles_filter import Filter
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check

Search = Literal["filter", "best_of", "magnitude"]

_SETTINGS = Filter()


@checked
def strided(
    task: Task,
    target: Target,
    *,
    shared: bool = True,
    search: Search = "filter",
    masks: Count = _SETTINGS.masks,
    rounds: Count = _SETTINGS.rounds,
    sharpness: Positive = _SETTINGS.sharpness,
    mutation: Proportion = _SETTINGS.mutation,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Keep every s-th position of each kernel, at offsets that a particle filter chooses.

    The density is made of a stride: 0.5 keeps every second position of the flattened kernel,
    0.33 every third, 0.75 drops every fourth. Where all filters that read an input channel
    share its offsets, dropped positions leave the lowered matrix product as whole columns:
    `secateurs.realise.lowered` makes it that much smaller.

    Source: Anwar, Hwang & Sung 2017, "Structured pruning of deep convolutional neural
    networks", section 3 (strided sparsity) and 4 (particle filter). Deviation: the stride
    is given by the density rather than raised until the network fails; see `particles` for
    what is open in the filter.

    Args:
        task: model, data and training; needs batches, except for `magnitude`.
        target: the fraction of kernel positions that stays, a density.
        shared: whether the filters that read an input channel have the same offsets.
        search: how offsets are chosen: the filter, the best of masks · rounds random ones,
            or the offsets of largest weights.
        masks: particles, N.
        rounds: how often they are tried.
        sharpness: how strongly low errors are preferred, for each standard deviation.
        mutation: share of the offsets that is exchanged between rounds.
        exclude: patterns of parameter names that stay whole; layers with fewer kernel
            positions than the stride, linear ones among them, do anyway.

    Raises:
        BudgetError: no stride up to the kernel's size gives the density.
        StructureError: no kernel has as many positions as the stride.
        PruneError: the task has no batches, or the numbers make no search.
    """
    check("search", search, ("filter", "best_of", "magnitude"))
    settings = Filter(masks, rounds, sharpness, mutation)
    model = copy.deepcopy(task.model)
    keep, stride = stride_for(target)
    sites = strides(model, stride, shared=shared, exclude=exclude)
    counts = {name: site.units // stride * keep for name, site in sites.items()}
    decision: Decision
    if search == "magnitude":
        decision = decide(sites, score(sites, l1, weight=weights(model)), counts)
    else:
        decision = found(task, model, sites, counts, search, settings)
    return finish(task, model, scatter(sites, decision), None)


def stride_for(target: Target, *, largest: int = 9) -> tuple[int, int]:
    """Return (keep, stride): the smallest stride of which `keep` offsets come close enough.

    Close is within a hundredth, which is how people write a third.

    >>> stride_for(Target("density", 0.5)), stride_for(Target("density", 0.33))
    ((1, 2), (1, 3))
    >>> stride_for(Target("density", 0.75))
    (3, 4)

    Raises:
        BudgetError: there is none up to `largest`, or the target is no density, or of multiples.
    """
    if target.kind != "density":
        raise BudgetError(
            f"strides keep a fraction of kernel positions, so --{target.kind} "
            f"{target.fraction:g} cannot be met; use --density"
        )
    target.refuse_multiples("strides say how many positions of a kernel stay")
    for stride in range(2, largest + 1):
        keep = round(target.fraction * stride)
        if 0 < keep < stride and abs(keep / stride - target.fraction) <= 0.01:
            return keep, stride
    near = Fraction(target.fraction).limit_denominator(largest)
    near = min(max(near, Fraction(1, largest)), Fraction(largest - 1, largest))
    raise BudgetError(
        f"density {target.fraction:g} is no fraction with a stride of 2 to {largest}; "
        f"use for example {float(near):.2g}, which is {near.numerator} of {near.denominator}"
    )


def strides(
    model: nn.Module, stride: int, *, shared: bool = True, exclude: tuple[str, ...] = ()
) -> dict[str, Site]:
    """Return the offset classes of every layer whose kernel has `stride` positions or more.

    Raises:
        StructureError: there is no such layer.
    """
    wide = [name for name, layer in layers(model).items() if prod(layer.kernel) >= stride]
    if not wide:
        raise StructureError(
            f"no kernel of {type(model).__name__} has {stride} positions; "
            "use a higher density, or another granularity"
        )
    return offsets(model, stride, shared=shared, include=wide, exclude=exclude or None)
