"""The evolutionary particle filter over masks, as arithmetic on bool rows; no model in sight.

A particle is a mask, bool (units,), with exactly `keep` units in each of its pools.

Source: Anwar, Hwang & Sung 2017, "Structured pruning of deep convolutional neural
networks", section 4, after Kwok, Fox & Meila for the resampling. The text leaves the
transition noise and the likelihood open; each choice of ours is marked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from secateurs.core.cut import keep_top
from secateurs.core.within import Within


@dataclass(frozen=True)
class Pools:
    """Which masks are allowed: `keep` units stay in every pool of `among`."""

    units: int
    among: int
    keep: int

    def __post_init__(self) -> None:
        """Insist on pools that the units fill."""
        assert self.among > 0, self
        assert self.units % self.among == 0, self
        assert 0 <= self.keep <= self.among, self

    def best(self, scores: Tensor) -> Tensor:
        """Return the allowed mask of highest scores."""
        return keep_top(scores, self.keep, self.among)


@dataclass(frozen=True)
class Filter:
    """How long to search and how boldly."""

    masks: int = 20
    """Particles, N."""
    rounds: int = 5
    sharpness: float = 2.0
    """Weight lost for each standard deviation of error, as a power of e."""
    mutation: float = 0.1
    """Share of the kept units that is exchanged, on average."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no search."""
        Within(1).check("masks", self.masks)
        Within(1).check("rounds", self.rounds)
        Within(0, above=True).check("sharpness", self.sharpness)
        Within(0, 1).check("mutation", self.mutation)


def search(
    pools: Pools, error: Callable[[Tensor], float], settings: Filter, generator: Generator
) -> tuple[Tensor, float]:
    """Return the mask of least error that the filter met, and its error.

    Args:
        pools: the masks that are allowed.
        error: mask → fraction misclassified on a held-out subset. Asked once for each mask.
        settings: how long and how boldly.
        generator: of every draw, on the CPU.
    """
    seen: dict[bytes, float] = {}
    best, least = draw(pools, generator), float("inf")
    masks = [draw(pools, generator) for _ in range(settings.masks)]
    weights = torch.full((settings.masks,), 1 / settings.masks, dtype=torch.float64)
    for turn in range(settings.rounds):
        if turn:
            masks = [mutate(mask, pools, settings.mutation, generator) for mask in masks]
        errors = [_once(error, mask, seen) for mask in masks]
        for mask, found in zip(masks, errors, strict=True):
            if found < least:
                best, least = mask, found
        weights = sharpen(weights, torch.tensor(errors, dtype=torch.float64), settings.sharpness)
        if effective(weights) < settings.masks / 2:
            chosen = [masks[i] for i in systematic(weights, generator).tolist()]
            masks = evolve(chosen, pools, generator)
            weights = torch.full_like(weights, 1 / settings.masks)
    return best, least


def best_of(
    pools: Pools, error: Callable[[Tensor], float], count: int, generator: Generator
) -> tuple[Tensor, float]:
    """Return the best of `count` random masks, and its error: the control.

    Source: Anwar & Sung 2016, arXiv:1610.09639, which found that this is enough.
    """
    if count == 1:
        return draw(pools, generator), float("nan")
    masks = [draw(pools, generator) for _ in range(count)]
    errors = [error(mask) for mask in masks]
    at = min(range(count), key=errors.__getitem__)
    return masks[at], errors[at]


def draw(pools: Pools, generator: Generator) -> Tensor:
    """Return an allowed mask, each as likely as any other."""
    return pools.best(torch.rand(pools.units, generator=generator))


def mutate(mask: Tensor, pools: Pools, rate: float, generator: Generator) -> Tensor:
    """Exchange kept units for dropped ones, in each pool a binomial number of them.

    Deviation: the transition noise is ours; the mean share of exchanged units is `rate`.
    """
    kept = mask.view(-1, pools.among)
    movable = min(pools.keep, pools.among - pools.keep)
    tossed = torch.rand(kept.shape[0], max(movable, 1), generator=generator)
    swaps = (tossed[:, :movable] < rate).sum(dim=1, keepdim=True)
    lots = torch.rand(kept.shape, generator=generator)
    out = _rank(torch.where(kept, lots, torch.inf)) < swaps
    back = _rank(torch.where(kept, torch.inf, lots)) < swaps
    return ((kept & ~out) | back).flatten()


def crossover(a: Tensor, b: Tensor, pools: Pools, generator: Generator) -> Tensor:
    """Return a child: what both parents agree on, the rest of either, repaired to the count."""
    votes = a.float() + b.float()
    return pools.best(votes + torch.rand(pools.units, generator=generator))


def evolve(masks: list[Tensor], pools: Pools, generator: Generator) -> list[Tensor]:
    """Replace copies that resampling made by children with another particle.

    The first of equal particles stays, so that nothing good is lost.
    """
    made: list[Tensor] = []
    seen: set[bytes] = set()
    for mask in masks:
        if (key := _key(mask)) in seen:
            other = masks[int(torch.randint(len(masks), (1,), generator=generator))]
            mask = crossover(mask, other, pools, generator)
        seen.add(key)
        made.append(mask)
    return made


def sharpen(weights: Tensor, errors: Tensor, sharpness: float) -> Tensor:
    """Return the weights after an observation: w · exp(−sharpness · error), summing to 1.

    Deviation: the errors are first measured in their own standard deviations. 1 − error,
    the paper's likelihood, is nearly the same for all masks (0.90 against 0.91), and with
    it no particle would ever be preferred.
    """
    spread = float(errors.std(correction=0))
    if spread == 0:
        return weights / weights.sum()
    found = weights * torch.exp(-sharpness * (errors - errors.min()) / spread)
    return found / found.sum()


def effective(weights: Tensor) -> float:
    """Return the effective number of particles, 1 / Σ w²."""
    return float(1 / weights.square().sum())


def systematic(weights: Tensor, generator: Generator) -> Tensor:
    """Draw as many indices as there are weights: index i floor(N w_i) or ceil(N w_i) times."""
    n = weights.numel()
    start = torch.rand(1, dtype=torch.float64, generator=generator)
    places = (torch.arange(n, dtype=torch.float64) + start) / n
    return torch.searchsorted(weights.double().cumsum(0), places, right=True).clamp_(max=n - 1)


def _once(error: Callable[[Tensor], float], mask: Tensor, seen: dict[bytes, float]) -> float:
    key = _key(mask)
    if key not in seen:
        seen[key] = error(mask)
    return seen[key]


def _key(mask: Tensor) -> bytes:
    return bytes(mask.numpy().tobytes())


def _rank(values: Tensor) -> Tensor:
    """Return the place of each entry in its row, ascending."""
    return values.argsort(dim=1).argsort(dim=1)
