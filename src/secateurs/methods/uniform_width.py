"""Uniform width: the control that chooses nothing, a narrower network of the same design."""

import torch

from secateurs.core.cut import decide, scatter
from secateurs.methods.channels import removable, share
from secateurs.methods.finish import finish
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task


def uniform_width(
    task: Task, target: Target, *, fresh: bool = True, exclude: tuple[str, ...] = ()
) -> Pruned:
    """Keep the first channels of every layer, the same fraction of each, with new weights.

    What a designer gets by asking for fewer channels everywhere; a method whose widths
    differ from layer to layer has to beat it to show that they matter.

    Source: the uniform baseline of Liu et al. 2019, arXiv:1810.05270, section 5.

    Args:
        task: model and training; training from nothing wants a larger learning rate than a
            recovery.
        target: how much stays.
        fresh: whether all weights are drawn anew; False keeps those of the first channels.
        exclude: patterns of parameter names that stay whole.

    Raises:
        StructureError: a module cannot draw its weights anew.
        BudgetError: the target cannot be met.
    """
    model = begin(task, fresh)
    place = removable(model, task.example, exclude)
    first = {name: torch.arange(site.units, 0.0, -1) for name, site in place.sites.items()}
    decision = decide(place.sites, first, share(place, first, target, "uniform"))
    return finish(task, model, scatter(place.sites, decision), place.graph)
