"""Let each filter listen only to the inputs whose contribution varies."""

import copy
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter
from secateurs.core.errors import PruneError
from secateurs.core.example import call
from secateurs.core.mask import Mask
from secateurs.core.within import Whole, checked
from secateurs.granularity.grains import kernels
from secateurs.measure.forward import evaluation, inputs_of
from secateurs.methods.finish import held
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Where, check, named, quota
from secateurs.realise.masked import apply_mask_
from secateurs.recovery.rows import Linear, linears, weight_name

Statistic = Literal["norm", "element"]


@checked
def inbound(
    task: Task,
    target: Target,
    *,
    statistic: Statistic = "norm",
    layer_epochs: Whole = 0,
    densities: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Disconnect, filter by filter, the input channels whose contribution varies least.

    Front to back: each layer is measured with those before it already cut. What a
    disconnected channel contributes on average goes into the filter's bias.

    Source: Polyak & Wolf 2015, "Channel-level acceleration of deep face representations",
    IEEE Access 3, Inbound Pruning. Deviations: means are folded rather than lost; where a
    layer has no bias, the batch norm that follows measures its statistics anew. Linear
    layers are cut too, as kernels of one element; name them in `exclude` to leave them.

    Args:
        task: model and data; labels are not used but for training.
        target: the density of kernels in every filter. Dense kernels gain nothing from it.
        statistic: variance over inputs of a contribution's `norm`, the paper's, or of its
            `element`s, which also sees a pattern that changes at constant energy.
        layer_epochs: training after each layer's cut; 0 leaves it all to the end.
        densities: NAME=FRACTION for weights that keep another density.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task has no data.
        BudgetError: the target is no density.
    """
    check("statistic", statistic, ("norm", "element"))
    if task.batches is None:
        raise PruneError("contributions are measured on inputs; pass Task(batches=...)")
    model = copy.deepcopy(task.model)
    found = {weight_name(path): path for path in linears(model)}
    sites = kernels(model, per_output=True, exclude=exclude or None)
    sites = {name: site for name, site in sites.items() if name in found}
    flat = {name: torch.zeros(site.units) for name, site in sites.items()}
    keep = quota(Where(sites), flat, target, "uniform", named(densities, sites))
    mask = Mask({})
    for name in in_order(model, task.batches(), {name: found[name] for name in sites}):
        linear = linears(model)[found[name]]
        spread, mean = contributions(model, task.batches(), linear, statistic)
        # Shape: (out, in), as `kernels` pools them.
        site = {name: sites[name]}
        chosen = scatter(site, decide(site, {name: spread.flatten()}, keep))
        fold_(linear, mean, chosen[name])
        mask &= chosen
        apply_mask_(model, chosen)
        if layer_epochs and task.train is not None:
            held(task, model, mask, name=f"after-{found[name]}", epochs=layer_epochs)
    held(task, model, mask, name="recover")
    return Pruned(model, mask)


def contributions(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], linear: Linear, statistic: Statistic
) -> tuple[Tensor, Tensor]:
    """Measure what each kernel adds to its filter's output.

    The map that kernel (t, s) makes of an input is never written down: its energy is
    wᵀ G w with G the second moments of channel s's patches.

    Returns:
        Variance and mean over inputs, each (out, in // groups); the variance is of the
        map's norm, or of its elements, summed over positions.

    Raises:
        PruneError: no input reached the layer.
    """
    taps, groups = linear.taps, linear.groups
    kernel = linear.matrix().double()
    # Shape: (groups, out per group, in per group, taps)
    kernel = kernel.view(groups, kernel.shape[1], -1, taps)
    total: dict[str, Tensor] = {}
    count = places = 0

    def add(name: str, value: Tensor) -> None:
        total[name] = total[name] + value if name in total else value

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        nonlocal count, places
        for x, y in zip(args[0][:, None], output[:, None], strict=True):
            at = linear.positions(y, None, torch.Generator())
            rows = linear.inputs(x, y.shape, at).double()
            rows = rows.view(len(rows), groups, -1, taps)
            moment = torch.einsum("rgck,rgcl->gckl", rows, rows)
            first = torch.einsum("rgck->gck", rows)
            energy = torch.einsum("gock,gckl,gocl->goc", kernel, moment, kernel).clamp(min=0)
            add("energy", energy)
            add("norm", energy.sqrt())
            add("sum", torch.einsum("gock,gck->goc", kernel, first) / len(rows))
            count, places = count + 1, len(rows)

    handle = linear.module.register_forward_hook(hook)
    try:
        with evaluation(model):
            for x in inputs_of(model, batches):
                call(model, x)
    finally:
        handle.remove()
    if not count:
        raise PruneError("a layer's contributions need inputs, and none reached it; check the data")
    mean = total["sum"] / count
    energy = total["energy"] / count
    if statistic == "norm":
        spread = energy - (total["norm"] / count).square()
    else:
        spread = energy - places * mean.square()
    return spread.clamp(min=0).flatten(0, 1), mean.flatten(0, 1)


def fold_(linear: Linear, mean: Tensor, keep: Tensor) -> None:
    """Add what disconnected kernels contribute on average to the bias, where there is one."""
    if linear.bias is None:
        return
    stays = keep.T if linear.transposed else keep
    gone = ~stays.flatten(2).any(dim=2) if stays.dim() > 2 else ~stays
    with torch.no_grad():
        linear.bias.add_((mean * gone.to(mean)).sum(dim=1).to(linear.bias))


def in_order(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], paths: dict[str, str]
) -> list[str]:
    """List weights in the order in which a forward pass first uses them."""
    order: dict[str, None] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, path in paths.items()
    ]
    try:
        with evaluation(model):
            for x in inputs_of(model, batches):
                call(model, x)
                break
    finally:
        for handle in handles:
            handle.remove()
    return list(order)
