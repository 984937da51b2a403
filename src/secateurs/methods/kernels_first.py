"""Kernels first, then filters: thin every filter out, then remove what little is left of some."""

import copy
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import StructureError
from secateurs.core.layers import Layer, layers
from secateurs.core.mask import Mask
from secateurs.core.site import Quota
from secateurs.core.within import Count, Part, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.granularity.blocks import Blocks
from secateurs.granularity.coupled import Coupled
from secateurs.granularity.grains import kernels as kernel_sites
from secateurs.methods.channels import Channels, Share, filters, removable, share
from secateurs.methods.finish import held, remove
from secateurs.methods.kernel_budgets import Budget, best, kept_per_filter
from secateurs.methods.kernel_ledger import ledger
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check
from secateurs.schedule.curves import cubic
from secateurs.schedule.steps import densities

Score = Literal["survivors", "all"]


@checked
def kernels_first(
    task: Task,
    target: Target,
    *,
    kernels: Part = 0.5,
    budget: Budget = "fixed",
    rounds: Count = 1,
    strength: Score = "survivors",
    ranking: Share = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the weakest kernels inside every filter, then remove the weakest filters.

    First each filter of each convolution keeps its strongest kernels, ranked by l1 within the
    filter, so that filters of small norm are not the ones that lose most; rounds of cutting
    and training approach the density of kernels. Then channels are ranked by the kernels that
    are left of their filters and removed physically until the target is met. Channels that
    no kernel reads any more are removed too, on top. Kernels cut from the filters that stay
    are zeros: the dense layers are as fast with them as without.

    Source: a reconstruction. Jiang et al. 2022, doi 10.3969/j.issn.0255-8297.2022.05.013, is a
    review that names the two stages; the closest published method is Zhu & Pei 2022, doi
    10.1007/s10489-021-02932-z, whose sparse index could not be had. In its place the
    `adaptive` budget uses Hoyer's index of sparsity.

    Args:
        task: model, data and training.
        target: how much stays after the second stage, counted in the channels, parameters or
            MACs of the dense layers; 1 leaves the first stage alone.
        kernels: fraction of the kernels of each convolution that stay after the first stage.
        budget: `fixed` keeps as many kernels in every filter of a layer; `adaptive` keeps
            fewer in filters whose strength sits in few kernels.
        rounds: how many times to cut kernels; each but the last is followed by a training.
        strength: `survivors` ranks a channel by what is left of its filters, `all` adds what
            reads it.
        ranking: `uniform` removes the same fraction of every layer's channels.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target or the density of kernels cannot be met.
        StructureError: the model has no convolution with several kernels in a filter.
    """
    check("budget", budget, ("fixed", "adaptive"))
    check("strength", strength, ("survivors", "all"))
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    sites = several(model, exclude)
    mask = Mask({})
    for i, density in enumerate(densities(cubic, rounds, kernels)):
        if i:
            held(task, model, mask, name=f"kernels-{i}")
        mask = kernel_mask(model, sites, density, budget)
    values = {n: w * mask[n] if n in mask else w for n, w in weights(model).items()}
    ranked = filters(place.sites, model) if strength == "survivors" else place.sites
    unread = unread_units(model, place, mask)
    scores = {
        name: found.masked_fill(unread[name], -1)
        for name, found in score(ranked, l1, weight=values).items()
    }
    quota = share(place, scores, target, ranking, normalise="none")
    decision = decide(place.sites, scores, without(quota, unread, place.sites))
    small = remove(task, model, mask & scatter(place.sites, decision), place.graph)
    if task.train is not None:
        held(task, small.model, small.mask, name="recover")
    note = str(ledger(small.model, small.mask))
    task.say(note)
    return Pruned(small.model, small.mask, place.graph, small, (note,))


def several(model: nn.Module, exclude: tuple[str, ...]) -> dict[str, Blocks]:
    """The kernels of every convolution that has several of them in a filter, in pools by filter.

    Raises:
        StructureError: there is none.
    """
    names = [
        layer.param
        for layer in layers(model).values()
        if layer.kernel
        and layer.group_shape[layer.in_axis] > 1
        and not (layer.transposed and layer.groups > 1)
    ]
    if not names:
        raise StructureError(
            f"{type(model).__name__} has no convolution with several kernels in a filter; "
            "prune it by another method, or by --granularity element"
        )
    found = kernel_sites(model, per_output=True, include=names, exclude=exclude or None)
    return cast(dict[str, Blocks], found)


def kernel_mask(
    model: nn.Module, sites: Mapping[str, Blocks], density: float, budget: Budget
) -> Mask:
    """Keep the strongest kernels of each filter by l1; nothing that is zero comes back."""
    scores = score(sites, l1, weight=weights(model))
    masks = {}
    for name, site in sites.items():
        # Shape: (filters, kernels of one filter)
        strengths = scores[name].view(-1, cast(int, site.among))
        keep = best(strengths, kept_per_filter(strengths, density, budget))
        masks.update(site.scatter(keep.flatten()))
    return Mask(masks)


def unread_units(model: nn.Module, place: Channels, mask: Mask) -> dict[str, Tensor]:
    """Mark the channels of which no kernel is read any more: site → bool (units,)."""
    found = layers(model)
    return {name: _unread(site, found, weights(model), mask) for name, site in place.sites.items()}


def _unread(
    site: Coupled, found: Mapping[str, Layer], values: Mapping[str, Tensor], mask: Mask
) -> Tensor:
    made = {(layer.param, (layer.out_axis,)) for layer in found.values()}
    read = [p for p in site.bucket.slices if p.param in found and (p.param, p.dims) not in made]
    device = next(iter(values.values())).device
    if not read or not all(part.param in mask for part in read):
        return torch.zeros(site.units, dtype=torch.bool, device=device)
    alive = torch.zeros(site.units, dtype=torch.bool)
    for part in read:
        axes = [d for d in range(len(part.view)) if d not in part.dims]
        along = mask[part.param].reshape(part.view).permute(*part.dims, *axes)
        merged = along.flatten(len(part.dims)).any(dim=-1).flatten().cpu()
        alive |= merged[part.index].any(dim=1)
    return ~alive.to(device)


def without(
    quota: Quota, unread: Mapping[str, Tensor], sites: Mapping[str, Coupled]
) -> dict[str, int]:
    """Lower a quota so that unread channels leave; one always stays, and pools stay even."""
    return {
        name: keep
        if sites[name].among
        else max(1, min(keep, sites[name].units - int(unread[name].sum())))
        for name, keep in quota.items()
    }
