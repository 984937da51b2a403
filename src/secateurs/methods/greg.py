"""Growing regularisation: push the channels that shall go to zero, ever harder, then cut."""

import copy
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.site import Decision
from secateurs.core.within import Amount, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Share, filters, removable, scale_, share
from secateurs.methods.during import training
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check

Variant = Literal["greg1", "greg2"]


@checked
def greg(
    task: Task,
    target: Target,
    *,
    variant: Variant = "greg1",
    depth: Amount = 6.0,
    pick: Amount = 0.5,
    ranking: Share = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Choose channels by the L1 norm of their filters, decay them away while training, cut.

    `greg2` first decays all channels alike, harder and harder: those on which the loss
    depends more strongly resist, so the norms that choose come to know of its curvature.

    Source: Wang et al. 2021, "Neural pruning via growing regularization", arXiv:2012.09243,
    section 3.2 and algorithm 1. Deviations: the decay is a share of the weights taken after
    each optimizer step and not a term of the gradient, so it does not fade with the learning
    rate; it grows in every step, where the paper's grows every few; whatever leaves with a
    channel decays.

    Args:
        task: model, data and training. Decaying takes as long as the recovery, and choosing
            by `greg2` as long again.
        target: how much stays.
        variant: see above.
        depth: by how many factors of e the chosen channels would shrink if the loss did not
            resist.
        pick: the same of all channels while `greg2` chooses.
        ranking: `uniform` keeps the same fraction of every layer, as the paper does.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met.
        OptionError: a depth is negative.
    """
    check("variant", variant, ("greg1", "greg2"))
    train, steps = training(task, "growing regularisation")
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    made = filters(place.sites, model)

    def chosen() -> Decision:
        scores = score(made, l1, weight=weights(model))
        return decide(place.sites, scores, share(place, scores, target, ranking))

    if variant == "greg2":
        chosen()  # refuses before any training
        everything = {n: torch.zeros(s.units, dtype=torch.bool) for n, s in place.sites.items()}
        train(model, name="pick", after_step=decaying(model, place.sites, everything, pick, steps))
    decision = chosen()
    train(model, name="grow", after_step=decaying(model, place.sites, decision, depth, steps))
    return finish(task, model, scatter(place.sites, decision), place.graph)


def growing(step: int, steps: int, depth: float) -> float:
    """Return the share that step `step` of `steps` takes; they grow evenly, to a sum of `depth`.

    >>> [growing(step, 3, 1.5) for step in (1, 2, 3)]
    [0.25, 0.5, 0.75]
    """
    return min(1.0, 2 * depth * step / (steps * (steps + 1)))


def decaying(
    model: nn.Module, sites: Mapping[str, Coupled], stays: Decision, depth: float, steps: int
) -> Callable[[int], None]:
    """Make the function that shrinks the units that do not stay after each step."""

    @torch.no_grad()
    def after(step: int) -> None:
        rate = growing(step, steps, depth)
        factors: dict[str, Tensor] = {n: 1 - rate * (~keep) for n, keep in stays.items()}
        scale_(weights(model), sites, factors)

    return after
