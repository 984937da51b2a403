"""Which layers read the units of a bucket, and shares given before any unit is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.core.site import Scores, Sites
from secateurs.granularity.coupled import Coupled
from secateurs.methods.task import Target
from secateurs.methods.where import Where, quota
from secateurs.recovery.rows import Linear, linears, weight_name


@dataclass(frozen=True)
class Reader:
    """A layer that reads a bucket's units."""

    path: str
    linear: Linear
    channels: Tensor
    """int64 (units, pieces): the input channels, over all groups, that each unit is."""

    def by_channel(self, per_unit: Tensor) -> Tensor:
        """Spread one value per unit to the input channels; others read as True or 1."""
        groups = self.linear.groups
        width = self.linear.matrix().shape[2] // self.linear.taps * groups
        spread = torch.ones(width, dtype=per_unit.dtype, device=per_unit.device)
        spread[self.channels.to(per_unit.device)] = per_unit[:, None]
        return spread

    def columns(self, keep: Tensor) -> Tensor:
        """Say which columns of the layer's matrix stay: bool (groups, size)."""
        channels = self.by_channel(keep).view(self.linear.groups, -1)
        return channels.repeat_interleave(self.linear.taps, dim=1)

    def units_of_columns(self) -> Tensor:
        """Return the unit of every column, (groups, size), -1 where it is of no unit."""
        units = torch.arange(len(self.channels))[:, None].expand_as(self.channels)
        width = self.linear.matrix().shape[2] // self.linear.taps
        spread = torch.full((self.linear.groups * width,), -1)
        spread[self.channels] = units
        return spread.view(self.linear.groups, -1).repeat_interleave(self.linear.taps, dim=1)

    def clear_(self, keep: Tensor) -> None:
        """Stop reading units that do not stay, bool (units,): their columns become zero."""
        matrix = self.linear.matrix()
        self.linear.write_(matrix * self.columns(keep)[:, None].to(matrix))


def readers(model: nn.Module, sites: Mapping[str, Coupled]) -> dict[str, list[Reader]]:
    """List the layers of `model` that read each bucket's units with a weight of their own."""
    layers = {weight_name(path): (path, linear) for path, linear in linears(model).items()}
    found: dict[str, list[Reader]] = {}
    for name, site in sites.items():
        found[name] = []
        for part in site.bucket.slices:
            if part.param not in layers:
                continue
            path, linear = layers[part.param]
            # Grouped inputs lie in (groups, out / groups, in / groups, ...), axes 0 and 2.
            if part.dims == (1 - linear.out_axis,) or part.dims == (0, 2):
                found[name].append(Reader(path, linear, part.index))
    return found


def even(sites: Sites) -> Scores:
    """Score units so that every site keeps the same share, whichever way they are ranked.

    For methods that are told how many units stay before they choose which.
    """
    return {
        name: 1 - (torch.arange(site.units, dtype=torch.float64) + 0.5) / site.units
        for name, site in sites.items()
    }


def shares(place: Where, target: Target, densities: Mapping[str, float]) -> dict[str, int]:
    """Say how many units of every site stay: the same share of each.

    Raises:
        BudgetError: the target cannot be met.
    """
    return dict(quota(place, even(place.sites), target, "uniform", densities))
