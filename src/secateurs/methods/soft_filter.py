"""Soft filter pruning: filters are set to zero while training, and may come back."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import BudgetError
from secateurs.core.site import Decision, Sites
from secateurs.core.within import Count, Part, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Share, filters, removable, share
from secateurs.methods.during import training
from secateurs.methods.finish import remove
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check
from secateurs.realise.masked import masked

Norm = Literal["l2", "l1", "fpgm"]


@checked
def soft_filter(
    task: Task,
    target: Target,
    *,
    criterion: Norm = "l2",
    ranking: Share = "uniform",
    rerank: Count = 10,
    stop: Part = 0.6,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Set the least filters to zero now and then while training, and remove them in the end.

    Zeroed filters go on learning, so the next ranking may choose others; the result says
    how many did return. After the last ranking the choice is held and training ends as it
    began; then the channels leave.

    Source: He et al. 2018, arXiv:1808.06866, algorithm 1; with `criterion=fpgm`, He et al.
    2019, arXiv:1811.00250, in the form that ranks anew (the authors' code stops the
    gradients of zeroed filters, so it only ever ranks once). Deviations: the last part of the
    training holds the choice; and no filter grows longer than it was or than the shortest
    kept one was, whichever is longer. A batch norm behind a zero filter multiplies its first
    gradient by some hundreds, after which its length would rank it first for ever.

    Args:
        task: model, data and training.
        target: how much stays.
        criterion: what ranks filters.
        ranking: `uniform` keeps the same fraction of every layer, as the papers do.
        rerank: how many times to rank; the paper does so after every epoch.
        stop: share of the training after which the choice is final.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target cannot be met, or the training is too short to rank as often.
    """
    check("criterion", criterion, ("l2", "l1", "fpgm"))
    train, steps = training(task, "soft filter pruning")
    last = round(stop * steps)
    if not 1 <= rerank <= last:
        raise BudgetError(
            f"cannot rank {rerank} times in {last} of {steps} steps; use rerank of 1 to {last}"
        )
    due = {round(last * (i + 1) / rerank) for i in range(rerank)}
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    made = filters(place.sites, model)
    chosen: list[Decision] = []

    def choose() -> Decision:
        scores = score(made, CRITERIA[criterion], weight=weights(model))
        return decide(place.sites, scores, share(place, scores, target, ranking))

    limits = caps(made, weights(model), choose())

    def update(step: int) -> None:
        if step <= last:
            for limit in limits:
                limit.hold_(weights(model))
        if step not in due:
            return
        decision = choose()
        if chosen:
            task.say(f"ranked at step {step}: {returned(chosen[-1], decision)}")
        chosen.append(decision)
        if step == last:
            held.update(scatter(place.sites, decision))
        else:
            zero_(weights(model), scatter(made, decision))

    with masked(model, _whole(model, place.sites)) as held:
        train(model, name="soft", after_step=update)
        mask = held.mask
    small = remove(task, model, mask, place.graph)
    return Pruned(small.model, small.mask, place.graph, small)


def zero_(values: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """Set what a mask drops to zero, in place; it is free to move again."""
    for name, keep in mask.items():
        if name in values:
            values[name].masked_fill_(~keep, 0)


@dataclass(frozen=True)
class Caps:
    """The greatest length that each filter of one weight may have."""

    param: str
    axis: int
    longest: Tensor

    def hold_(self, values: Mapping[str, Tensor]) -> None:
        """Scale the filters that are longer down to it, in place."""
        along = values[self.param].movedim(self.axis, 0)
        lengths = torch.linalg.vector_norm(along.flatten(1), dim=1)
        factor = torch.where(lengths > self.longest, self.longest / lengths, 1.0)
        along *= factor.view(-1, *[1] * (along.dim() - 1)).to(along)


def caps(
    sites: Mapping[str, Coupled], values: Mapping[str, Tensor], decision: Decision
) -> list[Caps]:
    """Cap each filter at its own length or that of the shortest kept one, the longer of both."""
    found = []
    for name, site in sites.items():
        for part in site.bucket.slices:
            axis = part.dims[0]
            lengths = torch.linalg.vector_norm(
                values[part.param].movedim(axis, 0).flatten(1), dim=1
            )
            index = part.index.to(lengths.device)
            kept = lengths[index[decision[name].to(index.device)]]
            longest = torch.full_like(lengths, torch.inf)
            longest[index] = lengths[index].clamp(min=float(kept.min()))
            found.append(Caps(part.param, axis, longest))
    return found


def _whole(model: nn.Module, sites: Sites) -> dict[str, Tensor]:
    """Keep everything the sites touch, so that checkpoints hold masks from the first step on."""
    touched = {name for site in sites.values() for name in site.params}
    tensors = {**weights(model), **dict(model.named_buffers())}
    return {n: torch.ones_like(t, dtype=torch.bool) for n, t in tensors.items() if n in touched}


def returned(before: Decision, after: Decision) -> str:
    """Say how many of the units that were cut before are kept now."""
    cut = sum(int((~keep).sum()) for keep in before.values())
    back = sum(int((~before[name] & after[name]).sum()) for name in before)
    return f"{back} of {cut} zeroed filters have come back"
