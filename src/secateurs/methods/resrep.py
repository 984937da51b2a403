"""ResRep: matrices behind the layers learn to forget channels, while the layers remember."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import BudgetError, StructureError
from secateurs.core.site import Decision, Scores
from secateurs.core.within import Amount, Count, checked
from secateurs.criteria.magnitude import l2
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Channels, Share, filters, removable, share
from secateurs.methods.during import training
from secateurs.methods.finish import finish
from secateurs.methods.resrep_compactor import Compactor, compactors, merge_
from secateurs.methods.task import Pruned, Target, Task

_BEGIN, _CHOSEN = 0.1, 0.6
"""Forgetting begins after a tenth of the training, and has its full size after six."""


@checked
def resrep(
    task: Task,
    target: Target,
    *,
    pull: Amount = 0.2,
    rechoose: Count = 20,
    ranking: Share = "global",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Train with a compactor behind every layer, drive its least rows to zero, merge, cut.

    A compactor is a square matrix, at first the identity. All its rows are shortened a
    little; the least ones, ever more until the target would be met, no longer follow the
    loss and vanish. The layers themselves go on learning as always. In the end each
    compactor is multiplied into its layer.

    Source: Ding et al. 2021, "ResRep: lossless CNN pruning via decoupling remembering and
    forgetting", arXiv:2007.03260, section 3. Deviations: the lasso acts as a proximal step
    after the optimizer's; forgotten rows are shortened so that they vanish before the
    training ends, where the paper trains until they have; channels of a residual stream
    are forgotten together, in all the compactors that write to it, where the paper leaves
    streams whole; the optimizer's weight decay and momentum hold for compactors too.

    Args:
        task: model, data and training.
        target: how much stays.
        pull: what the whole training takes off the length of every row, which begins at 1.
        rechoose: how many times the rows to forget are chosen, where there are so many steps.
        ranking: `global` ranks the rows of all compactors together, as the paper does.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        StructureError: no layer can have a compactor.
        BudgetError: the target cannot be met, or the training is too short.
    """
    train, steps = training(task, "ResRep")
    first, last = round(_BEGIN * steps), round(_CHOSEN * steps)
    if last <= first:
        raise BudgetError(
            f"cannot choose {rechoose} times between steps {first} and {last} of {steps}; "
            "train longer"
        )
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    made = filters(place.sites, model)
    behind = compactors(model, task.example, made)
    sites = {n: s for n, s in place.sites.items() if any(p in behind for p in made[n].params)}
    if not sites:
        raise StructureError(
            f"{type(model).__name__} has no linear or convolution layer that writes channels of "
            "its own, so nothing can have a compactor; use --method depgraph"
        )
    for part in behind.values():
        part.attach_()
    own = Channels(sites, place.graph)

    def choose(progress: float) -> Decision:
        aim = target.at(1 - progress * (1 - target.fraction))
        scores = lengths(made, behind, sites)
        return decide(sites, scores, share(own, scores, aim, ranking, normalise="none"))

    choose(1.0)  # refuses before any training
    due = {first + round((last - first) * (i + 1) / rechoose): (i + 1) / rechoose
           for i in range(rechoose)}  # fmt: skip

    @torch.no_grad()
    def after_step(step: int) -> None:
        if step in due:
            write_rows(made, choose(due[step]), {n: p.remembers for n, p in behind.items()})
        for part in behind.values():
            shorten_(part.matrix, part.remembers, pull / steps, max(0, steps - step))

    train(model, name="compact", after_step=after_step)
    decision = choose(1.0)
    left = longest_cut(lengths(made, behind, sites), decision)
    note = f"resrep: the longest row that was cut had {left:.2g} of the mean kept one's length"
    task.say(note)
    merge_(behind, model, task.batches() if task.batches else ())
    pruned = finish(task, model, scatter(sites, decision), place.graph)
    return replace(pruned, notes=(note,))


def lengths(
    made: Mapping[str, Coupled], behind: Mapping[str, Compactor], sites: Iterable[str]
) -> dict[str, Tensor]:
    """Measure the rows of each unit over all compactors that write it: → (units,)."""
    rows = {name: part.along(part.matrix.detach().norm(dim=1)) for name, part in behind.items()}
    return dict(score({name: made[name] for name in sites}, l2, weight=rows))


def write_rows(made: Mapping[str, Coupled], decision: Decision, rows: Mapping[str, Tensor]) -> None:
    """Write 1 where a row's unit stays and 0 where not, in place; other rows stay as they are."""
    for name, keep in decision.items():
        for part in made[name].bucket.slices:
            if part.param in rows:
                index = part.index.to(rows[part.param].device)
                rows[part.param][index] = keep.to(rows[part.param])[:, None].expand_as(index)


def shorten_(matrix: Tensor, remembers: Tensor, by: float, left: int) -> None:
    """Shorten rows in place: each by a length, and forgotten ones evenly to 0 in `left` steps.

    >>> q = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    >>> shorten_(q, torch.tensor([1.0, 0.0]), 0.5, 3)
    >>> q
    tensor([[0.0000, 1.5000],
            [0.7500, 0.0000]])
    """
    norms = matrix.norm(dim=1)
    less = (1 - by / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(min=0)
    factor = torch.where(remembers > 0, less, left / (left + 1))
    matrix.mul_(factor[:, None])


def longest_cut(scores: Scores, decision: Decision) -> float:
    """Return the length of the longest cut unit over the mean of the kept ones."""
    cut = torch.cat([scores[name][~keep] for name, keep in decision.items()])
    kept = torch.cat([scores[name][keep] for name, keep in decision.items()])
    return float(cut.max() / kept.mean()) if len(cut) else 0.0
