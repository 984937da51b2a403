"""How much each layer's own pruning hurts, and what to keep of each for an equal hurt."""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.cut import keep_top
from secateurs.core.errors import BudgetError
from secateurs.core.site import Quota, Scores, Sites
from secateurs.evidence.weights import weights
from secateurs.measure.accuracy import evaluate
from secateurs.measure.report import write_whole
from secateurs.realise.masked import apply_mask

GRID = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)
"""Densities that a scan tries."""


@dataclass(frozen=True)
class Curve:
    """What a model does when one site alone is pruned, nothing retrained: data for a plot."""

    densities: tuple[float, ...]
    """From 1 down."""
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    """Fraction right, 0 to 1."""

    def density_at(self, rise: float) -> float:
        """Return the least density whose loss lies at most `rise` above the dense one's.

        Between the points of the scan the loss is taken as linear; it never falls as the
        density does, and rises without bound below the last point.

        >>> Curve((1.0, 0.5), (0.2, 0.4), (0.9, 0.8)).density_at(0.1)
        0.75
        """
        worst = self.losses[0]
        density = self.densities[0]
        for lower, loss in zip(self.densities[1:], self.losses[1:], strict=True):
            if max(worst, loss) - self.losses[0] > rise:
                share = (rise + self.losses[0] - worst) / (loss - worst)
                return density + share * (lower - density)
            worst, density = max(worst, loss), lower
        return density


def scan(
    model: nn.Module,
    sites: Sites,
    scores: Scores,
    batches: Callable[[], Iterable[Any]],
    *,
    densities: Iterable[float] = GRID,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Curve]:
    """Prune one site at a time to each density and evaluate: site name → curve.

    With a folder, every finished site is written to it as JSON and read from there the next
    time, if model, scores' order and densities are the same.

    Source: Han et al. 2015, arXiv:1506.02626, section 4 and figure 6.
    """
    grid = tuple(sorted({1.0, *densities}, reverse=True))
    print_ = _fingerprint(model, grid)
    whole = None
    curves = {}
    for name, site in sites.items():
        place = folder / f"{name}.json" if folder is not None else None
        found = _read(place, print_)
        if found is None:
            say(f"sensitivity of {name}: {len(grid)} densities")
            whole = whole or evaluate(model, batches())
            points = [whole]
            for density in grid[1:]:
                keep = keep_top(scores[name], max(1, round(density * site.units)))
                points.append(evaluate(apply_mask(model, site.scatter(keep)), batches()))
            found = Curve(grid, tuple(p.loss for p in points), tuple(p.value for p in points))
            if place is not None:
                write_whole(place, json.dumps({"of": print_, **asdict(found)}))
        curves[name] = found
    return curves


def tolerated(sites: Sites, curves: Mapping[str, Curve], density: float) -> Quota:
    """Share round(density × units) places so that every site alone costs the same loss.

    Every site keeps at least one unit; the target is met exactly.

    Raises:
        BudgetError: the target lies below what the scan has tried.
    """
    wanted = round(density * sum(site.units for site in sites.values()))

    def counts(rise: float) -> dict[str, int]:
        return {
            name: max(1, round(curves[name].density_at(rise) * site.units))
            for name, site in sites.items()
        }

    low, high = 0.0, max(max(c.losses) - c.losses[0] for c in curves.values()) + 1e-9
    least = sum(counts(high).values())
    if wanted < least:
        total = sum(site.units for site in sites.values())
        raise BudgetError(
            f"the sensitivity scan reaches {least} of {total} units, and density {density:g} "
            f"asks for {wanted}; use {least / total:.4f} or more, or another rule"
        )
    for _ in range(60):
        middle = (low + high) / 2
        if sum(counts(middle).values()) > wanted:
            low = middle
        else:
            high = middle
    found = counts(high)
    # Rounding leaves a few places; the largest sites take them.
    spare = wanted - sum(found.values())
    for name in sorted(found, key=lambda n: -sites[n].units):
        more = min(spare, sites[name].units - found[name])
        found[name] += more
        spare -= more
    return found


def _fingerprint(model: nn.Module, grid: tuple[float, ...]) -> str:
    crc = 0
    for name, value in weights(model).items():
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(raw.tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x} at {grid}"


def _read(place: Path | None, print_: str) -> Curve | None:
    if place is None or not place.exists():
        return None
    try:
        plain = json.loads(place.read_text())
        if plain.pop("of") != print_:
            return None
        return Curve(**{key: tuple(values) for key, values in plain.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def spread(values: Tensor, keep: Tensor | None) -> float:
    """Standard deviation of a layer's weights, of those that stay where `keep` is given."""
    chosen = values[keep] if keep is not None else values
    return float(chosen.double().std(correction=0)) if chosen.numel() else 0.0
