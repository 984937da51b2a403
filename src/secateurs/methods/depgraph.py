"""DepGraph: shrink coupled groups as a whole while training, the least ones most; then cut."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.site import Scores
from secateurs.core.within import Amount, checked
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Share, removable, scale_, share
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task


@checked
def depgraph(
    task: Task,
    target: Target,
    *,
    depth: Amount = 2.0,
    alpha: Amount = 4.0,
    ranking: Share = "global",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Train coupled channels towards group sparsity, then remove those of least group norm.

    A group is all that leaves with a channel: filters, norms, and the weights of every layer
    that reads it. Each step shrinks it, the least group of a layer 2^alpha times as fast as
    the greatest.

    Source: Fang et al. 2023, "DepGraph: towards any structural pruning", arXiv:2301.12900,
    eq. 4 to 6. Deviations: groups shrink after the optimizer's step by a share that does not
    follow the learning rate, so one `depth` serves trainings of any length; the shares follow
    the norms of every step, where the authors' code takes them anew every epoch.

    Args:
        task: model, data and training; without training the groups are cut as they are.
        target: how much stays.
        depth: by how many factors of e the least group would shrink over the whole
            training if the loss did not resist; 0 trains without shrinking.
        alpha: how much faster the least group shrinks, in powers of two.
        ranking: `global` ranks all channels together, by their norm over their layer's mean.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
        OptionError: `depth` is negative.
    """
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    if task.train is not None and task.steps:
        after_step = shrinking(model, place.sites, depth / task.steps, alpha)
        task.train(model, name="sparse", after_step=after_step)
    norms = group_norms(place.sites, weights(model))
    decision = decide(place.sites, norms, share(place, norms, target, ranking))
    return finish(task, model, scatter(place.sites, decision), place.graph)


def group_norms(sites: Mapping[str, Coupled], values: Mapping[str, Tensor]) -> Scores:
    """Sum the squares of all that leaves with each unit: → (units,)."""
    return {name: found.square() for name, found in score(sites, l2, weight=values).items()}


def strengths(norms: Tensor, alpha: float) -> Tensor:
    """Say how fast each unit shrinks beside the greatest of its site: → (units,), from 1.

    >>> strengths(torch.tensor([4.0, 2.0, 0.0]), 4.0)
    tensor([ 1.,  4., 16.])
    """
    spread = norms.max() - norms.min()
    if not bool(spread > 0):
        return torch.ones_like(norms)
    return torch.exp2(alpha * (norms.max() - norms) / spread)


def shrinking(
    model: nn.Module, sites: Mapping[str, Coupled], least: float, alpha: float
) -> Callable[[int], None]:
    """Make the function that shrinks all groups after a step: the least one by `least`."""

    @torch.no_grad()
    def after(step: int) -> None:
        values = weights(model)
        rates = {
            name: least * strengths(norms, alpha) / 2**alpha
            for name, norms in group_norms(sites, values).items()
        }
        scale_(values, sites, {name: (1 - rate).clamp(min=0) for name, rate in rates.items()})

    return after
