"""Network slimming: train with an L1 penalty on the channels' scales, cut the small ones."""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.layers import layers
from secateurs.core.mask import Mask
from secateurs.core.site import Decision, Scores
from secateurs.core.within import Amount, Count, Whole, checked
from secateurs.criteria.scale import scale
from secateurs.evidence.scales import norms
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.channels import Share, filters, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check
from secateurs.realise.masked import masked
from secateurs.schedule.curves import linear
from secateurs.schedule.steps import densities

Step = Literal["penalty", "proximal"]


@checked
def slimming(
    task: Task,
    target: Target,
    *,
    strength: Amount = 1e-4,
    step: Step = "penalty",
    passes: Count = 1,
    epochs: Whole = 0,
    ranking: Share = "global",
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Drive the scales of channels towards zero while training, then remove the smallest.

    A channel's scale is the mean |γ| of the batch norms it passes; all are ranked together,
    by rank and not by threshold, and every layer keeps at least one channel. Channels that
    pass no batch norm have an inserted scale: the length of their filter over the mean
    length in the dense layer, which is what a scale in front of filters of unit length would
    be. The penalty on it is a group lasso.

    Source: Liu et al. 2017, arXiv:1708.06519, section 3. Deviations: channels of a residual
    stream leave together, where the paper selects the inputs of each block; between passes
    the cut channels are held at zero, which computes the same as removing them, and they
    leave after the last pass; the task's own model is where the training starts.

    Args:
        task: model, data and training; without training the scales are cut as they are.
        target: how much stays after the last pass; the passes approach it in equal steps.
        strength: λ, the weight of the penalty; what every step takes from each scale under
            `proximal`, where the paper's is the learning rate times λ.
        step: `penalty` adds λ Σ|γ| to the loss, as the paper does, which leaves small scales
            oscillating around zero; `proximal` shrinks them after every step, to exact zeros.
        passes: how many times to train with the penalty and cut.
        epochs: of sparse training in each pass; 0 for as many as the recovery.
        ranking: `global` as in the paper; `uniform` keeps the same fraction of every layer.
        exclude: patterns of parameter names that stay whole, and unpenalised.

    Raises:
        BudgetError: the target cannot be met.
    """
    check("step", step, ("penalty", "proximal"))
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    units = lengths(model, place.sites)
    mask = Mask({})
    decision: Decision = {}
    for i, fraction in enumerate(densities(linear, passes, target.fraction)):
        if task.train is not None:
            with masked(model, mask):
                task.train(
                    model,
                    name=f"sparse-{i}" if passes > 1 else "sparse",
                    epochs=epochs or None,
                    penalty=penalty(units, strength) if step == "penalty" else None,
                    after_step=shrinking(model, units, strength) if step == "proximal" else None,
                )
        scales = {name: t.detach() for name, t in scales_of(model, units).items()}
        scores = below(score(place.sites, scale, scale=scales), decision)
        aim = target.at(fraction)
        decision = decide(place.sites, scores, share(place, scores, aim, ranking, normalise="none"))
        mask = scatter(place.sites, decision)
    return finish(task, model, mask, place.graph)


def lengths(model: nn.Module, sites: Mapping[str, Coupled]) -> dict[str, Tensor | None]:
    """Say what multiplies the channels of the sites: → parameter → None, or reference lengths.

    None for a batch norm's scale, which counts as it is. Where a site touches no batch norm,
    the weights that produce it, with the mean length of their filters in this model, one
    number.
    """
    known, found = norms(model), dict[str, Tensor | None]()
    out_axes = {layer.param: layer.out_axis for layer in layers(model).values()}
    for name, site in filters(sites, model).items():
        passed = [p for p in sites[name].params if p in known]
        found.update(dict.fromkeys(passed))
        for param in () if passed else site.params:
            if param in out_axes:
                found[param] = _lengths(model, param, out_axes[param]).detach().mean()
    return found


def scales_of(model: nn.Module, units: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The scales by parameter name, differentiable; lengths have length 1 along other axes."""
    out_axes = {layer.param: layer.out_axis for layer in layers(model).values()}
    return {
        name: _tensor(model, name)
        if reference is None
        else _lengths(model, name, out_axes[name]) / reference
        for name, reference in units.items()
    }


def penalty(units: Mapping[str, Tensor | None], strength: float) -> Callable[[nn.Module], Tensor]:
    """Make the function of a model that a training adds to its loss: λ Σ|scale|."""

    def of(model: nn.Module) -> Tensor:
        found = scales_of(model, units).values()
        return strength * torch.stack([s.abs().sum() for s in found]).sum()

    return of


def soft_threshold(x: Tensor, by: float) -> Tensor:
    """Move every number towards zero by `by`, and no further.

    >>> soft_threshold(torch.tensor([3., -1., 0.5]), 1.)
    tensor([2., -0., 0.])

    The minimiser of ½(y - x)² + by · |y|.
    """
    return x.sign() * (x.abs() - by).clamp(min=0)


def shrinking(
    model: nn.Module, units: Mapping[str, Tensor | None], by: float
) -> Callable[[int], None]:
    """Make the function that takes `by` from every scale after each step, in place."""

    @torch.no_grad()
    def after(step: int) -> None:
        stored = weights(model)
        for name, found in scales_of(model, units).items():
            # A filter is shortened as a whole, which is the same factor for all its weights.
            factor = soft_threshold(found, by) / found.where(found != 0, torch.ones_like(found))
            stored[name].mul_(factor)

    return after


def below(scores: Scores, decision: Decision) -> dict[str, Tensor]:
    """Rank what an earlier pass has cut below everything else."""
    return {
        name: values if name not in decision else values.masked_fill(~decision[name], -1)
        for name, values in scores.items()
    }


def _lengths(model: nn.Module, name: str, axis: int) -> Tensor:
    weight = _tensor(model, name)
    others = [d for d in range(weight.dim()) if d != axis]
    found: Tensor = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return found


def _tensor(model: nn.Module, name: str) -> Tensor:
    # The attribute, and not the parameter: under a mask it is the masked weight.
    found: Tensor = operator.attrgetter(name)(model)
    return found
