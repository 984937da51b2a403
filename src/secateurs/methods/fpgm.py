"""Cut the filters nearest to the geometric median of their layer: others can replace them."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from secateurs.core.cut import keep_top, scatter, score
from secateurs.core.evidence import Evidence
from secateurs.core.site import Decision, Quota
from secateurs.core.within import Proportion, checked
from secateurs.criteria.geometry import fpgm as distances
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Share, agreement, filters, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task


@checked
def fpgm(
    task: Task,
    target: Target,
    *,
    mix: Proportion = 0.0,
    ranking: Share = "uniform",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the filters with the least sum of distances to all others, then train the rest.

    Distances and norms often rank filters alike, so the result says how far the two agree.
    To prune while training, with filters that come back, use
    `soft_filter` with `criterion=fpgm`.

    Source: He et al. 2019, arXiv:1811.00250. Deviations: filters that write to the same
    residual stream leave together, so they are compared as one vector; all that a channel
    touches is removed, where the paper keeps batch norms and streams whole.

    Args:
        task: model, data and training.
        target: how much stays.
        mix: share of the cut that goes to the smallest norms first; the rest is chosen by
            distance among the survivors. The paper's FPGM-mix at 40 % is 0.25.
        ranking: `uniform` keeps the same fraction of every layer, as the paper does.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
        OptionError: `mix` is not in 0 to 1.
    """
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    made = filters(place.sites, model)
    far, norms = (score(made, f, weight=weights(model)) for f in (distances, l2))
    quota = share(place, far, target, ranking)
    decision = mixed(made, weights(model), quota, mix)
    by_norm = mixed(made, weights(model), quota, 1.0)
    note = f"fpgm against l2: {agreement(made, far, norms, decision, by_norm)}"
    task.say(note)
    pruned = finish(task, model, scatter(place.sites, decision), place.graph)
    return Pruned(pruned.model, pruned.mask, pruned.graph, pruned.compacted, (note,))


def mixed(
    sites: Mapping[str, Coupled], values: Mapping[str, Tensor], quota: Quota, mix: float
) -> Decision:
    """Cut `mix` of what must go by norm, the rest by distance among those that are left.

    Of the authors' code: the norms first, the distances between survivors only, and both
    counts fractions of the original number of filters.
    """
    return {
        name: _mixed(site.gather(values), quota[name], site.among, mix)
        for name, site in sites.items()
    }


def _mixed(rows: Tensor, keep: int, among: int | None, mix: float) -> Tensor:
    pools = torch.split(rows, among or len(rows))
    return torch.cat([_mixed_pool(pool, keep // len(pools), mix) for pool in pools])


def _mixed_pool(rows: Tensor, keep: int, mix: float) -> Tensor:
    by_norm = round(mix * (len(rows) - keep))
    stays = keep_top(l2(Evidence(weight=rows)), len(rows) - by_norm)
    far = distances(Evidence(weight=rows[stays]))
    stays[stays.nonzero().squeeze(1)] = keep_top(far, keep)
    return stays
