"""Making the scores of different sites comparable, without changing any site's order.

Raw magnitudes are not: a layer with a large fan-in has small weights, a unit that spans
more parameters a larger norm, and a layer followed by a normalisation may have any scale
at all. Ranking sites together on raw scores therefore empties some of them first.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from secateurs.core.errors import BudgetError
from secateurs.core.site import Scores

Normalise = Literal["none", "mean", "max", "l2", "lamp"]


def normalised(scores: Scores, how: Normalise) -> Scores:
    """Divide the scores of each site by a number of its own, or apply `lamp_scores`.

    `mean` and `max` divide by the site's mean and maximum; `l2` by the root of its sum of
    squares (Molchanov et al. 2017, arXiv:1611.06440, section 2.2).

    Raises:
        BudgetError: an unknown way, or negative scores.
    """
    if how not in NORMALISATIONS:
        raise BudgetError(f"cannot normalise by {how!r}; use one of {', '.join(NORMALISATIONS)}")
    if how == "none":
        return scores
    for name, values in scores.items():
        if values.numel() and bool(values.min() < 0):
            raise BudgetError(
                f"cannot normalise the scores of {name!r} by {how!r}: some are negative; "
                f"use normalise='none'"
            )
    return {name: NORMALISATIONS[how](values) for name, values in scores.items()}


def lamp_scores(values: Tensor) -> Tensor:
    """Each score squared, over the sum of the squares not ranked below it, (units,).

    The largest of a site scores 1, so no site is emptied before all others are down to
    one unit. Pass magnitudes, as `l1` and `l2` give for single weights.

    >>> lamp_scores(torch.tensor([1., 2., 1.]))
    tensor([0.2000, 1.0000, 0.1667])

    Source: Lee et al. 2021, arXiv:2010.07611, eq. 3; ties go to the lower index.
    """
    order = values.argsort(descending=True, stable=True)
    squares = values[order].double().square()
    ratio = squares / squares.cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(values).index_copy_(0, order, ratio.to(values.dtype))


def _over(values: Tensor, scale: Tensor) -> Tensor:
    return values / scale if bool(scale > 0) else values


NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "mean": lambda values: _over(values, values.mean()),
    "max": lambda values: _over(values, values.max()),
    "l2": lambda values: _over(values, torch.linalg.vector_norm(values)),
    "lamp": lamp_scores,
}

assert set(NORMALISATIONS) == set(get_args(Normalise))
