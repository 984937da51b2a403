"""Keep the most active channels and let them stand in for the others."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import PruneError
from secateurs.core.example import call
from secateurs.core.site import Sites
from secateurs.core.within import Amount, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.measure.forward import evaluation, inputs_of
from secateurs.methods.finish import finish
from secateurs.methods.readers import Reader, readers, shares
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check, named, where

Statistic = Literal["norm", "element"]


@checked
def reduce_reuse(
    task: Task,
    target: Target,
    *,
    statistic: Statistic = "norm",
    reuse: bool = True,
    ridge: Amount = 1e-3,
    densities: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels that vary least and rebuild them from those that stay.

    Reduce keeps the channels of largest variance. Reuse writes each removed channel as a
    linear mix of the kept ones plus a constant, and lets the layers that read it read the
    mix instead; a channel that never varies is its constant.

    Source: Polyak & Wolf 2015, "Channel-level acceleration of deep face representations",
    IEEE Access 3, Reduce and Reuse. Deviations: activations are taken where they are read,
    behind the activation function, so the mix always merges into the next layer, without a
    1 x 1 convolution of its own; a coupled channel adds up its variances over all its
    readers, each relative to the layer's total. With zero padding the constant is exact
    only away from the border.

    Args:
        task: model and data; labels are not used.
        target: how much stays; every bucket keeps the same share.
        statistic: variance over inputs of a map's `norm`, the paper's, or of its `element`s,
            which also sees a pattern that changes at constant energy.
        reuse: False drops channels for their constants alone.
        ridge: keeps the mix small where kept channels are alike, relative to their mean
            variance.
        densities: NAME=FRACTION for buckets that keep another share, for a density target.
        exclude: patterns of bucket names that stay whole.

    Raises:
        PruneError: the task has no data.
        BudgetError: the target cannot be met.
    """
    check("statistic", statistic, ("norm", "element"))
    if task.batches is None:
        raise PruneError("activity is measured on inputs; pass Task(batches=...)")
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "out_channel", exclude=exclude)
    sites = cast(dict[str, Coupled], place.sites)
    counts = shares(place, target, named(densities, sites))
    reading = readers(model, sites)
    seen = measure(model, task.batches(), reading)
    heard = {name: who for name, who in reading.items() if any(r.path in seen for r in who)}
    scores = {
        name: torch.stack(
            [seen[r.path].of_units(r).variance(statistic) for r in who if r.path in seen]
        ).sum(dim=0)
        for name, who in heard.items()
    }
    silent: Sites = {name: site for name, site in sites.items() if name not in heard}
    scores |= score(silent, CRITERIA["l2"], weight=weights(model))
    decision = decide(sites, scores, counts)
    for name, who in heard.items():
        for reader in who:
            if reader.path in seen:
                activity = seen[reader.path].of_units(reader)
                mix, constant = activity.mix(decision[name], ridge, reuse=reuse)
                replace_(reader, decision[name], mix, constant)
    return finish(task, model, scatter(sites, decision), place.graph, like=task.model)


@dataclass
class Activity:
    """Streaming moments of the inputs of one layer, per channel and between channels."""

    rows: int
    total: Tensor
    """(channels,): sums over inputs and positions."""
    products: Tensor
    """(channels, channels): sums of products."""
    norms: "Moments"
    """Of the norm of each channel's map, over inputs."""

    def of_units(self, reader: Reader) -> "Activity":
        """Add up the channels of each unit, as many rows each as a unit has channels."""
        index = reader.channels
        pieces = index.shape[1]
        products = sum(self.products[index[:, p]][:, index[:, p]] for p in range(pieces))
        assert isinstance(products, Tensor)
        spread, mean = self.norms.spread, self.norms.mean
        norms = Moments(self.norms.count, mean[index].sum(1), spread[index].sum(1))
        return Activity(self.rows * pieces, self.total[index].sum(1), products, norms)

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Return means, (channels,), and covariances, (channels, channels)."""
        mean = self.total / self.rows
        return mean, self.products / self.rows - torch.outer(mean, mean)

    def variance(self, statistic: Statistic) -> Tensor:
        """Return each channel's share of the layer's variance, (channels,), summing to 1."""
        own = self.covariance()[1].diagonal() if statistic == "element" else self.norms.spread
        own = own.clamp(min=0)
        return own / own.sum().clamp(min=1e-30)

    def mix(self, keep: Tensor, ridge: float, *, reuse: bool = True) -> tuple[Tensor, Tensor]:
        """Write removed channels as a mix of kept ones: a ≈ A a_keep + b.

        Returns:
            A, (removed, kept), and b, (removed,). Without `reuse` A is zero and b the mean.
        """
        mean, covariance = self.covariance()
        keep = keep.to(mean.device)
        among, across = covariance[keep][:, keep], covariance[~keep][:, keep]
        if reuse and among.numel():
            level = ridge * among.diagonal().mean()
            damped = among + level * torch.eye(len(among), dtype=among.dtype, device=among.device)
            mix = across @ torch.linalg.pinv(damped, hermitian=True)
        else:
            mix = torch.zeros_like(across)
        return mix, mean[~keep] - mix @ mean[keep]


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, merged batch by batch.

    Source: Chan, Golub & LeVeque 1979, the pairwise form of Welford's update.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    spread: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of squared deviations."""

    def add_(self, values: Tensor) -> None:
        """Merge values, (inputs, channels)."""
        variance, mean = torch.var_mean(values.double(), dim=0, correction=0)
        count = self.count + len(values)
        gap = mean - self.mean.to(mean)
        self.spread = (
            self.spread.to(mean)
            + variance * len(values)
            + gap.square() * (self.count * len(values) / count)
        )
        self.mean = self.mean.to(mean) + gap * (len(values) / count)
        self.count = count


def measure(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], reading: dict[str, list[Reader]]
) -> dict[str, Activity]:
    """Watch what every reader reads: path → activity of its input channels."""
    found: dict[str, Activity] = {}
    linears = {r.path: r.linear for who in reading.values() for r in who}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].double()
            # Shape: (inputs, channels, positions)
            maps = x.flatten(2) if linears[path].spatial else x.movedim(-1, 1)
            maps = maps.reshape(*maps.shape[:2], -1)
            flat = maps.transpose(0, 1).flatten(1)
            if path not in found:
                channels = len(flat)
                found[path] = Activity(
                    0, flat.new_zeros(channels), flat.new_zeros(channels, channels), Moments()
                )
            mine = found[path]
            mine.rows += flat.shape[1]
            mine.total += flat.sum(dim=1)
            mine.products += flat @ flat.T
            mine.norms.add_(maps.norm(dim=2))

        return hook

    handles = [linears[p].module.register_forward_pre_hook(watch(p)) for p in linears]
    ran = False
    try:
        with evaluation(model):
            for x in inputs_of(model, batches):
                call(model, x)
                ran = True
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise PruneError("activity cannot be measured without inputs; the loader is empty")
    return found


def replace_(reader: Reader, keep: Tensor, mix: Tensor, constant: Tensor) -> None:
    """Let a layer read the mix in place of the removed units, in place.

    Removed units' columns become zero, their share goes to the kept units' columns, and the
    constant into the bias; a layer without one leaves it to the batch norm behind it.
    """
    linear = reader.linear
    matrix = linear.matrix().double()
    groups, out, _ = matrix.shape
    taps = matrix.view(groups, out, -1, linear.taps)
    shift = torch.zeros(groups, out, dtype=matrix.dtype, device=matrix.device)
    width = taps.shape[2]
    channels = reader.channels.to(matrix.device)
    keep, mix, constant = (t.to(matrix.device) for t in (keep, mix.double(), constant.double()))
    for piece in channels.unbind(dim=1):
        group, place = piece // width, piece % width
        for g in range(groups):
            here = group == g
            # A group reads only its own channels, so only those can stand in.
            gone, left = here & ~keep, here & keep
            a = mix[here[~keep]][:, here[keep]]
            lost = taps[g][:, place[gone]]
            taps[g][:, place[left]] += torch.einsum("ort,rk->okt", lost, a)
            shift[g] += lost.sum(dim=2) @ constant[here[~keep]]
            taps[g][:, place[gone]] = 0
    linear.write_(matrix.to(linear.weight))
    if linear.bias is not None:
        with torch.no_grad():
            linear.bias.add_(shift.flatten().to(linear.bias))
