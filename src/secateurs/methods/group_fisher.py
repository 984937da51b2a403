"""Group Fisher: cut the channels whose common mask the loss feels least, for what they cost."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.core.cut import decide, scatter
from secateurs.core.example import map_tensors
from secateurs.core.within import Count, checked
from secateurs.evidence.gradients import gradients
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.graph.cost import predict
from secateurs.methods.channels import Channels, Share, read, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.start import batches_for
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check

Per = Literal["macs", "nothing"]


@checked
def group_fisher(
    task: Task,
    target: Target,
    *,
    samples: Count = 64,
    per: Per = "macs",
    ranking: Share = "global",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels whose mask has the least Fisher information for the MACs they cost.

    One mask multiplies what all layers read of a coupled channel; the square of the loss's
    gradient with respect to it, summed over samples, is the loss of setting it to zero.

    Source: Liu et al. 2021, "Group Fisher pruning for practical network compression",
    arXiv:2108.00708, eq. 4 to 8. Deviations: all channels are cut at once, where the paper
    cuts one every 25 steps of training; importance is divided by MACs, where the paper
    prefers the memory of activations.

    Args:
        task: model, labelled data and training.
        target: how much stays.
        samples: how many to take gradients of, one backward pass each.
        per: divide the importance by the MACs that leave with a channel, or by nothing.
        ranking: `global` ranks all channels together, as the paper does.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches.
        BudgetError: the target cannot be met.
    """
    check("per", per, ("macs", "nothing"))
    batches = batches_for(task, "group Fisher")
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    scores = fisher(model, read(place.sites, model), islice(singles(batches()), samples))
    if per == "macs":
        costs = macs_per_unit(place)
        scores = {name: values / costs[name] for name, values in scores.items()}
    quota = share(place, scores, target, ranking, normalise="none")
    decision = decide(place.sites, scores, quota)
    return finish(task, model, scatter(place.sites, decision), place.graph)


def fisher(
    model: nn.Module, sites: Mapping[str, Coupled], samples: Iterable[Any]
) -> dict[str, Tensor]:
    """Sum over samples the squared gradient of each unit's mask: → (units,), squared loss.

    The mask's gradient is the sum of w · ∂L/∂w over the weights that read the unit.
    """
    held, total = weights(model), dict[str, Tensor]()
    for sample in samples:
        found = gradients(model, [sample], F.cross_entropy)["gradient"]
        product = {name: held[name] * g for name, g in found.items()}
        for name, site in sites.items():
            felt = site.gather(product).double().sum(dim=1).square()
            total[name] = total[name] + felt if name in total else felt
    return total


def singles(batches: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[Any, Tensor]]:
    """Cut (inputs, labels) batches into single samples, batches of one."""
    for inputs, labels in batches:
        for i in range(len(labels)):
            yield map_tensors(lambda t, at=i: t[at : at + 1], inputs), labels[i : i + 1]  # type: ignore[misc]


def macs_per_unit(place: Channels) -> dict[str, float]:
    """Say what leaves with one unit of each site while all others stay: site → MACs.

    At least one, so that a unit that costs nothing can be divided by it.
    """
    whole = predict(place.graph, {}).macs
    found = {}
    for name, site in place.sites.items():
        # A pool has to keep as many units as every other.
        pools = site.units // site.among if site.among else 1
        keep = torch.ones(pools, site.units // pools, dtype=torch.bool)
        keep[:, -1] = False
        less = predict(place.graph, {name: keep.flatten()}).macs
        found[name] = max(1.0, (whole - less) / pools)
    return found
