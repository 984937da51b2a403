"""Optimal Brain Surgeon, layer by layer: cut, and let the rest of each row make up for it."""

import copy

import torch
from torch import Tensor

from secateurs.core.cut import keep_top, score
from secateurs.core.errors import EvidenceError
from secateurs.core.layers import layers
from secateurs.core.mask import Mask
from secateurs.core.within import Amount, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.inputs import input_moments
from secateurs.evidence.weights import weights
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, named, quota, where

_NUMBERS = 1 << 25
"""How many numbers the inverses of the rows that are pruned together may hold."""


@checked
def obs(
    task: Task,
    target: Target,
    *,
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    greedy: bool = False,
    damping: Amount = 0.01,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Cut the weights whose loss the other weights of their row can best make up for.

    Each layer is to give what it gave before, on its own inputs: the error is quadratic, and
    its Hessian the second moments of the inputs, which all rows of a weight share. Cut are
    the weights of least w² / 2 [H⁻¹]qq; all others of their row move to where the error is
    least. Layers are done in order, each on the inputs it gets from the pruned ones.

    Source: Hassibi & Stork 1992, eq. 5; Dong, Chen & Pan 2017, arXiv:1705.07565, for one
    layer at a time; Frantar & Alistarh 2022, arXiv:2208.11580, algorithm 1, for rows.

    Args:
        task: model, data and training.
        target: how many weights stay.
        ranking: how the target is shared among the layers, by magnitude; within a layer
            the rows compete.
        densities: NAME=FRACTION for weights that keep another density under `uniform`.
        greedy: whether every row loses one weight at a time, with w and H⁻¹ brought up to
            date after each; takes rows · size³ steps for a layer, so for small ones.
        damping: added to the diagonal of H, as a share of its mean.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches, or a layer's inputs cannot be measured.
        BudgetError: the target cannot be met.
    """
    if task.batches is None:
        raise EvidenceError("inputs of layers are measured on data; pass Task(batches=...)")
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "element", exclude=exclude)
    scores = score(place.sites, l1, weight=weights(model))
    keep = quota(place, scores, target, ranking, named(densities, place.sites))
    known, masks = layers(model), {}
    for name in place.sites:
        found = input_moments(model, task.batches(), [name])
        weight = weights(model)[name]
        if name not in found:
            task.say(f"{name} is never reached; cut by magnitude")
            masks[name] = keep_top(scores[name], keep[name]).view_as(weight)
            weight.mul_(masks[name])
            continue
        rows = weight.reshape(known[name].groups, -1, weight[0].numel())
        kept, values = surgeon(rows, found[name], keep[name], greedy=greedy, damping=damping)
        masks[name] = kept.view_as(weight)
        weight.copy_(values.view_as(weight))
        task.say(f"{name}: {keep[name]} of {weight.numel()} weights stay")
    return finish(task, model, Mask(masks), place.graph)


def surgeon(
    rows: Tensor, moments: Tensor, keep: int, *, greedy: bool = False, damping: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Keep `keep` of all weights, and move the rest: → (kept, values), as `rows`.

    Args:
        rows: (groups, rows, size).
        moments: x xᵀ of each group's inputs, (groups, size, size).
        keep: over all groups and rows.
        greedy: one weight of a row at a time.
        damping: share of the mean of the diagonal added to it.
    """
    precise, hessians = rows.double(), moments.double()
    size = rows.shape[2]
    power = hessians.diagonal(dim1=1, dim2=2)
    dead = power == 0
    ridge = damping * power.mean(dim=1)
    hessians = hessians + ridge.view(-1, 1, 1) * torch.eye(size).to(hessians)
    # Inputs that are always zero would make H singular; their weights cost nothing.
    hessians = hessians + torch.diag_embed(dead.to(hessians))
    precise = precise.masked_fill(dead.unsqueeze(1), 0)
    costs = torch.stack(
        [
            greedy_costs(group, h) if greedy else costs_at_once(group, h)
            for group, h in zip(precise, hessians, strict=True)
        ]
    )
    kept = keep_top(costs.flatten(), keep).view_as(costs)
    values = torch.zeros_like(precise)
    for i, h in enumerate(hessians):
        for j, stays in enumerate(kept[i]):
            # Given what stays, the best values are those of least squares on it.
            inner = h[stays][:, stays]
            right = h[stays] @ precise[i, j]
            values[i, j, stays] = torch.linalg.solve(inner, right)
    return kept, values.to(rows)


def costs_at_once(rows: Tensor, hessian: Tensor) -> Tensor:
    """Error added by each weight's removal alone, once the row has made up for it: (rows, size)."""
    inverse = torch.linalg.inv(hessian)
    costs: Tensor = rows.square() / (2 * inverse.diagonal())
    return costs


def greedy_costs(rows: Tensor, hessian: Tensor) -> Tensor:
    """The same when each row's cheapest weight goes first and the rest is weighed anew.

    Made to rise along the order of a row, so that cutting the cheapest of all rows cuts
    each row from the front of its order.
    """
    at_once = max(1, _NUMBERS // rows.shape[1] ** 2)
    return torch.cat([_removals(part, hessian) for part in torch.split(rows, at_once)])


def _removals(rows: Tensor, hessian: Tensor) -> Tensor:
    w = rows.clone()
    inverse = torch.linalg.inv(hessian).expand(len(rows), -1, -1).clone()
    costs = torch.zeros_like(w)
    gone = torch.zeros_like(w, dtype=torch.bool)
    index = torch.arange(len(rows), device=rows.device)
    so_far = torch.zeros(len(rows)).to(w)
    for _ in range(rows.shape[1]):
        diagonal = inverse.diagonal(dim1=1, dim2=2)
        each = (w.square() / (2 * diagonal)).masked_fill(gone, float("inf"))
        cost, q = each.min(dim=1)
        so_far = torch.maximum(so_far * (1 + 1e-9), cost)  # Ties would lose the order.
        costs[index, q] = so_far
        gone[index, q] = True
        column = inverse[index, :, q]
        pivot = column[index, q]
        w -= (w[index, q] / pivot).unsqueeze(1) * column
        inverse -= column.unsqueeze(2) * (column / pivot.unsqueeze(1)).unsqueeze(1)
        # What is gone stays gone, exactly.
        w[gone] = 0
        inverse.diagonal(dim1=1, dim2=2)[gone] = 1.0
    return costs
