"""The one cut: score the units, keep the best, say which parameters that leaves."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from secateurs.core.errors import BudgetError, EvidenceError, PruneError
from secateurs.core.evidence import Evidence
from secateurs.core.finite import finite
from secateurs.core.mask import Mask
from secateurs.core.rank import kth_largest
from secateurs.core.site import Decision, Quota, Scores, Site, Sites

Criterion = Callable[[Evidence], Tensor]


def keep_top(scores: Tensor, keep: int, among: int | None = None) -> Tensor:
    """Mark the `keep` best of every `among` consecutive scores: (n,) → bool (n,).

    Exactly `keep` are marked in each pool; of equal scores the lower index stays.

    >>> keep_top(torch.tensor([3., 1., 1., 2.]), 1, among=2)
    tensor([ True, False, False,  True])
    >>> keep_top(torch.tensor([1., 1., 1.]), 2)
    tensor([ True,  True, False])

    Raises:
        BudgetError: `keep` is not in 0..`among`, or `among` does not divide n.
    """
    n = scores.numel()
    pool = n if among is None else among
    if pool and n % pool:
        raise BudgetError(f"cannot split {n} units into pools of {among}; use a divisor of {n}")
    if not 0 <= keep <= pool:
        raise BudgetError(f"cannot keep {keep} of every {pool} units; keep 0 to {pool}")
    if n == 0 or keep == 0:
        return torch.zeros(n, dtype=torch.bool, device=scores.device)
    if keep == pool:
        return torch.ones(n, dtype=torch.bool, device=scores.device)
    if pool == n:
        return _top_of_one(scores, keep)
    order = scores.view(-1, pool).argsort(dim=1, descending=True, stable=True)
    marked = torch.zeros(n // pool, pool, dtype=torch.bool, device=scores.device)
    return marked.scatter_(1, order[:, :keep], True).view(n)


def _top_of_one(scores: Tensor, keep: int) -> Tensor:
    """Find the boundary score by selection, which is linear, and settle its ties by index."""
    boundary = kth_largest([scores], keep)
    marked = scores > boundary
    ties = (scores == boundary).nonzero().squeeze(1)
    marked[ties[: keep - int(torch.count_nonzero(marked))]] = True
    return marked


def score(sites: Sites, criterion: Criterion, **evidence: Mapping[str, Tensor]) -> Scores:
    """Apply one formula to every site: evidence by kind and parameter name → scores.

    >>> score(sites, l1, weight=weights(model))                       # doctest: +SKIP

    Raises:
        EvidenceError: the criterion needs a kind that was not passed.
        PruneError: a score is NaN or infinite; the site is named.
    """
    return {name: _score(name, site, criterion, evidence) for name, site in sites.items()}


def _score(
    name: str, site: Site, criterion: Criterion, evidence: Mapping[str, Mapping[str, Tensor]]
) -> Tensor:
    try:
        kinds = {kind: site.gather(tensors) for kind, tensors in evidence.items()}
        result = criterion(Evidence(**kinds))
    except EvidenceError as error:
        raise EvidenceError(f"site {name!r}: {error}") from None
    assert result.shape == (site.units,), f"{name}: scores {tuple(result.shape)}"
    if not finite(result):
        bad = int((~result.isfinite()).sum())
        raise PruneError(
            f"{bad} of {site.units} scores of {name!r} are NaN or infinite; "
            f"check the model's weights and the evidence, or exclude {name!r}"
        )
    return result


def decide(sites: Sites, scores: Scores, quota: Quota) -> Decision:
    """Keep the best `quota[name]` units of every site: → site name → bool (units,).

    Raises:
        BudgetError: a quota is missing, out of range or does not fill the site's pools evenly.
    """
    if missing := [name for name in sites if name not in quota or name not in scores]:
        raise BudgetError(
            f"no quota or no scores for {', '.join(missing)}; pass both for every site"
        )
    return {name: _decide(name, site, scores[name], quota[name]) for name, site in sites.items()}


def _decide(name: str, site: Site, scores: Tensor, keep: int) -> Tensor:
    if not 0 <= keep <= site.units:
        raise BudgetError(
            f"cannot keep {keep} of {site.units} units of {name!r}; keep 0 to {site.units}"
        )
    pools = site.units // site.among if site.among else 1
    if keep % pools:
        raise BudgetError(
            f"cannot keep {keep} units of {name!r} evenly in {pools} pools of {site.among}; "
            f"use a multiple of {pools}"
        )
    return keep_top(scores, keep // pools, site.among)


def scatter(sites: Sites, decision: Decision) -> Mask:
    """Say which entries of which parameters a decision leaves; sites meet by AND."""
    masks: dict[str, Tensor] = {}
    for name, site in sites.items():
        for param, keep in site.scatter(decision[name]).items():
            masks[param] = masks[param] & keep if param in masks else keep
    return Mask(masks)


def select(sites: Sites, scores: Scores, quota: Quota) -> Mask:
    """Keep the best `quota` units of every site and return the mask.

    Raises:
        BudgetError: a quota cannot be met exactly.
    """
    return scatter(sites, decide(sites, scores, quota))
