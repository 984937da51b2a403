"""Discrimination-aware channel pruning: keep the channels that a classifier needs."""

import copy
from itertools import pairwise
from typing import cast

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import PruneError
from secateurs.core.site import Sites
from secateurs.core.within import Amount, Count, Whole, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.measure.forward import device_of, labelled, to_device
from secateurs.methods.dcp_work import Batches, Refit, Work
from secateurs.methods.finish import finish
from secateurs.methods.inbound import in_order
from secateurs.methods.readers import readers, shares
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import named, where


@checked
def dcp(
    task: Task,
    target: Target,
    *,
    losses: Whole = 2,
    weight: Amount = 1.0,
    tune_passes: Whole = 2,
    tune_lr: Amount = 0.01,
    passes: Whole = 1,
    lr: Amount = 0.01,
    rounds: Count = 8,
    adapt: Amount = 0.0,
    densities: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Add auxiliary classifiers, and build each layer's inputs up from nothing, best first.

    The network is split into stages, each ending in a classifier of its own. A stage is
    tuned for that classifier and the final one in turn; then the channels its layers read
    are added greedily, those of largest gradient first, refitting in between.

    Source: Zhuang et al. 2018, "Discrimination-aware channel pruning for deep neural
    networks", arXiv:1810.11809, algorithms 1 and 2, eq. 3 to 7. Deviations: channels that
    several layers read are chosen by all of them together, in the stage of the first;
    several are added at once (`rounds`), as one at a time costs two passes each; tuning and
    selection use the task's batches rather than the whole training set. A channel's score
    is the norm of its gradient, as in the paper, not the sum of its kernels' norms, as in
    the authors' code. Units that no layer reads by a weight of its own are chosen by norm.

    Args:
        task: model and labelled data.
        target: how much stays at most; every bucket keeps the same share.
        losses: auxiliary classifiers, spread evenly; the final one comes on top.
        weight: λ of the stage's loss beside the reconstruction error; 0 only reconstructs.
        tune_passes: passes over the batches to tune a stage.
        tune_lr: their learning rate.
        passes: passes over the batches to refit after each addition.
        lr: their learning rate.
        rounds: additions until a bucket is full.
        adapt: stop a bucket when an addition lowers the loss by less than this fraction of
            what it was with no channel (DCP-Adapt; the paper uses 0.001); 0 always fills it.
        densities: NAME=FRACTION for buckets that keep another share, for a density target.
        exclude: patterns of bucket names that stay whole.

    Raises:
        PruneError: no labelled data, or the loss stopped being finite.
        BudgetError: the target cannot be met.
    """
    batches = batches_of(task)
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "out_channel", exclude=exclude)
    sites = cast(dict[str, Coupled], place.sites)
    counts = shares(place, target, named(densities, sites))
    reading = readers(model, sites)
    paths = {r.path: r.path for who in reading.values() for r in who}
    order = in_order(model, batches, paths)
    work = Work(model, task.model, batches, weight, task.seed)
    refit = Refit(passes, lr, rounds, adapt)
    for ends, layers in stages(order, losses):
        head = work.head(ends)
        work.tune_(head, tune_passes, tune_lr)
        for path in layers:
            for name, who in reading.items():
                if name not in work.decision and path in (r.path for r in who):
                    here = [r for r in who if r.path in order]
                    keep = work.select_(here, counts[name], sites[name], head, refit)
                    work.decision[name] = keep
                    work.cleared += [(reader, keep) for reader in who]
                    work.clear_()
                    task.say(f"stage {ends or 'end'}: {name} keeps {int(keep.sum())}")
    rest: Sites = {name: site for name, site in sites.items() if name not in work.decision}
    scores = score(rest, CRITERIA["l2"], weight=weights(model))
    decision = {**work.decision, **decide(rest, scores, counts)}
    return finish(task, model, scatter(sites, decision), place.graph, like=task.model)


def stages(order: list[str], losses: int) -> list[tuple[str | None, list[str]]]:
    """Split layers evenly: → (layer whose output a classifier reads, the stage's layers).

    The last stage ends in the network's own classifier, None.

    >>> stages(["a", "b", "c", "d", "e"], 1)
    [('b', ['a', 'b']), (None, ['c', 'd', 'e'])]
    """
    parts = max(1, min(losses + 1, len(order)))
    cuts = [round(i * len(order) / parts) for i in range(parts + 1)]
    pieces = [order[a:b] for a, b in pairwise(cuts)]
    return [(piece[-1], piece) for piece in pieces[:-1]] + [(None, pieces[-1])]


def batches_of(task: Task) -> Batches:
    """List the task's batches where the model is.

    Raises:
        PruneError: there are none, or they have no labels.
    """
    device = device_of(task.model)
    found = list(labelled(task.batches() if task.batches else ()))
    if not found:
        raise PruneError(
            "discrimination-aware pruning trains classifiers; pass Task(batches=...) with "
            "(input, label) pairs"
        )
    return [(to_device(x, device), y.to(device)) for x, y in found]
