"""Search masks by how often the masked network is wrong: the evolutionary particle filter."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Generator, Tensor, nn

from secateurs.core.cut import scatter
from secateurs.core.errors import BudgetError, PruneError
from secateurs.core.site import Decision, Quota, Site, Sites
from secateurs.core.within import Count, Positive, Proportion, checked
from secateurs.data.tensors import mix
from secateurs.measure.accuracy import evaluate
from secateurs.measure.forward import device_of
from secateurs.methods.finish import finish
from secateurs.methods.particles_filter import Filter, Pools, best_of
from secateurs.methods.particles_filter import search as filtered
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check, named, quota, where
from secateurs.realise.masked import Held, masked

Search = Literal["filter", "best_of"]

_SETTINGS = Filter()


@checked
def particles(
    task: Task,
    target: Target,
    *,
    granularity: str = "kernel",
    search: Search = "filter",
    masks: Count = _SETTINGS.masks,
    rounds: Count = _SETTINGS.rounds,
    sharpness: Positive = _SETTINGS.sharpness,
    mutation: Proportion = _SETTINGS.mutation,
    densities: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Keep the units whose absence is noticed most, found by trying masks on images.

    Layer by layer, from the input: masks of exactly the wanted size are drawn, tried,
    weighted by how often the network is then wrong, resampled, crossed and mutated. The best
    that was met stays while the next layer is searched. `best_of` tries random masks only,
    masks · rounds of them; `-o search=best_of -o masks=1 -o rounds=1` is plain chance.

    Source: Anwar, Hwang & Sung 2017, "Structured pruning of deep convolutional neural
    networks", section 4 (particle filter), and Anwar & Sung 2016, arXiv:1610.09639
    (best of N). Deviation: all layers are cut before the one training; masks are judged
    on training images, the task having no others.

    Args:
        task: model, data and training; needs batches.
        target: how many units of every layer stay.
        granularity: what is cut; `out_channel` is removed physically.
        search: the filter, or its control.
        masks: particles, N.
        rounds: how often they are tried.
        sharpness: how strongly low errors are preferred, for each standard deviation.
        mutation: share of the kept units that is exchanged between rounds.
        densities: NAME=FRACTION for layers that keep another density.
        exclude: patterns of parameter names that stay whole.

    Raises:
        BudgetError: the target cannot be met.
        PruneError: the task has no batches, or the numbers make no search.
    """
    check("search", search, ("filter", "best_of"))
    settings = Filter(masks, rounds, sharpness, mutation)
    model = copy.deepcopy(task.model)
    place = where(model, task.example, granularity, exclude=exclude)
    if target.kind != "density":
        raise BudgetError(
            f"masks are drawn with a fixed number of units, so --{target.kind} cannot be met; "
            "use --density"
        )
    counts = quota(place, {}, target, "uniform", named(densities, place.sites))
    decision = found(task, model, place.sites, counts, search, settings)
    return finish(task, model, scatter(place.sites, decision), place.graph)


def found(
    task: Task, model: nn.Module, sites: Sites, counts: Quota, search: Search, settings: Filter
) -> Decision:
    """Search the sites one after another: → which units stay; `model` is not changed.

    Raises:
        PruneError: the task has no batches to try masks on.
    """
    if task.batches is None:
        raise PruneError("masks are judged on images, and there are none; pass Task(batches=...)")
    batches = list(task.batches())
    model = copy.deepcopy(model)
    decision: dict[str, Tensor] = {}
    # Dense, so that a unit one mask drops has its weights back in the next.
    with masked(model, {}, gradients="dense") as held:
        for i, (name, site) in enumerate(sites.items()):
            pools = _pools(site, counts[name])
            generator = Generator().manual_seed(mix(task.seed, i))
            so_far = {n: sites[n] for n in (*decision, name)}
            error = _error(held, model, so_far, dict(decision), batches)
            if search == "filter":
                keep, least = filtered(pools, error, settings, generator)
            else:
                keep, least = best_of(pools, error, settings.masks * settings.rounds, generator)
            decision[name] = keep.to(device_of(model))
            task.say(f"{name}: {counts[name]} of {site.units} units stay, {_wrong(least)}")
    return decision


def _pools(site: Site, count: int) -> Pools:
    among = site.among or site.units
    return Pools(site.units, among, count * among // site.units)


def _error(
    held: Held,
    model: nn.Module,
    sites: Sites,
    decision: Decision,
    batches: Sequence[tuple[Any, Tensor]],
) -> Callable[[Tensor], float]:
    """Make the judge of masks of the last of `sites`, the others being decided."""
    *_, name = sites

    def error(keep: Tensor) -> float:
        held.update(scatter(sites, {**decision, name: keep.to(device_of(model))}))
        return 1 - evaluate(model, batches).value

    return error


def _wrong(error: float) -> str:
    return "not tried" if error != error else f"{100 * error:.2f} % wrong"
