"""Greedy selection: add what the gradient asks for, refit, and stop when it no longer helps."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from secateurs.core.cut import keep_top
from secateurs.core.errors import PruneError

Gradient = Callable[[Tensor], tuple[float, Tensor]]
"""Chosen units, bool (units,) → the loss, and the norm of each unit's gradient, (units,)."""
Fit = Callable[[Tensor, Tensor], None]
"""(chosen, newly added), both bool (units,): refit the weights of the chosen."""


@dataclass(frozen=True)
class Greedy:
    """How many units there are, how many may be chosen, and when to stop before that."""

    units: int
    keep: int
    at_once: int = 1
    """Units added before each refit."""
    adapt: float = 0.0
    """Stop when an addition lowers the loss by at most this fraction of the first; 0 never."""


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and scores under which it ranks first, in order of addition."""

    chosen: Tensor
    scores: Tensor


def greedy(how: Greedy, gradient: Gradient, fit: Fit) -> Chosen:
    """Choose units from none: the largest gradients first, refitting after each addition.

    With exact fits and one unit at a time this is (group) orthogonal matching pursuit. An
    addition that ends the search is taken back, except the first.

    Source: Zhuang et al. 2018, arXiv:1810.11809, algorithm 2 and eq. 7.

    Raises:
        PruneError: the loss or a gradient is not finite.
    """
    chosen = torch.zeros(how.units, dtype=torch.bool)
    scores = torch.zeros(how.units, dtype=torch.float64)
    first, norms = gradient(chosen)
    last, place = first, 0
    while int(chosen.sum()) < how.keep:
        if not (isfinite(last) and bool(norms.isfinite().all())):
            raise PruneError(
                f"the loss is {last} after {int(chosen.sum())} units, or its gradient is not "
                "finite; lower the learning rate"
            )
        open_norms = torch.where(chosen, -1.0, norms.double())
        count = min(how.at_once, how.keep - int(chosen.sum()))
        added = keep_top(open_norms, count)
        fit(chosen | added, added)
        now, norms = gradient(chosen | added)
        if how.adapt and chosen.any() and abs(last - now) <= how.adapt * abs(first):
            fit(chosen, torch.zeros_like(chosen))
            break
        for unit in open_norms.argsort(descending=True, stable=True)[:count].tolist():
            scores[unit] = 2.0 + how.units - place
            place += 1
        chosen, last = chosen | added, now
    # What was not chosen ranks behind, by the gradient it would still have.
    rest = norms.double() / (1 + norms.double().max())
    return Chosen(chosen, torch.where(chosen, scores, rest))
