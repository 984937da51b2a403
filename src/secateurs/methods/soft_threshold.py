"""Soft threshold reparametrization: every layer learns how much of its weights is zero."""

import torch
from torch import Tensor, nn

from secateurs.core.cut import select
from secateurs.core.errors import BudgetError
from secateurs.core.mask import Mask
from secateurs.core.within import Count, Part, checked
from secateurs.evidence.weights import weights
from secateurs.methods.during import training
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.through import through
from secateurs.methods.where import check, counted, where
from secateurs.schedule.table import SCHEDULES

OFF = -40.0
"""A level at which the threshold, its sigmoid, is nothing."""


@checked
def soft_threshold(
    task: Task,
    target: Target,
    *,
    schedule: str = "cubic",
    every: Count = 10,
    until: Part = 0.75,
    fresh: bool = False,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Shrink all weights by thresholds that are learned like weights; what is below is zero.

    How the target is shared among the layers is what the thresholds learn. After the pruning
    the mask is final and the shrunk weights are trained as they are.

    Source: Kusupati et al. 2020, arXiv:2002.03231, eq. 3 and 6, with a sigmoid of the level as
    threshold. Deviation: the paper lets weight decay raise all levels and takes the sparsity
    that comes; here all layers share an offset of their levels, such that exactly the
    scheduled number of weights lies above its threshold at every update.

    Args:
        task: model, data and training.
        target: how many weights stay.
        schedule: how fast the target is approached.
        every: steps between updates of the shared offset.
        until: share of the training after which the mask is final.
        fresh: whether to train from new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long.
        BudgetError: the target is not a density, or cannot be met.
    """
    check("schedule", schedule, SCHEDULES)
    if target.kind != "density":
        raise BudgetError(f"thresholds leave {target.kind} as they are; use --density")
    train, steps = training(task, "soft thresholding")
    model = begin(task, fresh)
    place = where(model, task.example, "element", exclude=exclude)
    last = max(1, round(until * steps))
    stages = {name: Soft(weights(model)[name]) for name in place.sites}
    with through(model, stages):

        def after_step(step: int) -> None:
            if step > last or (step % every and step < last):
                return
            done = SCHEDULES[schedule](step / last)
            values = weights(model)
            above = {n: stage.above(values[n]).flatten() for n, stage in stages.items()}
            quota = counted(place, above, target.at(1 - done * (1 - target.fraction)), "global")
            mask = select(place.sites, above, quota)
            gone = [above[n][~keep.flatten()] for n, keep in mask.items()]
            offset = max((float(x.max()) for x in gone if len(x)), default=OFF)
            for name, keep in mask.items():
                stages[name].offset.fill_(offset)
                if step == last:
                    stages[name].settle_(values[name], keep)

        train(model, name="soft", after_step=after_step)
    return Pruned(model, Mask({n: stage.keep.bool() for n, stage in stages.items()}))


class Soft(nn.Module):
    """What a module sees is sign(w) · max(0, |w| - sigmoid(level + offset)), where kept."""

    offset: Tensor
    keep: Tensor

    def __init__(self, like: Tensor) -> None:
        """Begin without a threshold."""
        super().__init__()
        self.level = nn.Parameter(like.new_zeros(()))
        self.register_buffer("offset", like.new_full((), OFF))
        self.register_buffer("keep", torch.ones_like(like))

    def forward(self, weight: Tensor) -> Tensor:
        """Shrink towards zero."""
        threshold = (self.level + self.offset).sigmoid()
        return weight.sign() * (weight.abs() - threshold).relu() * self.keep

    def above(self, weight: Tensor) -> Tensor:
        """The offset at which each weight would meet the threshold: the weight's shape."""
        tiny = torch.finfo(weight.dtype).eps
        return torch.logit(weight.abs(), tiny) - self.level.detach()

    def settle_(self, weight: Tensor, keep: Tensor) -> None:
        """Store weights as they are seen, without a threshold from now on, masked by `keep`."""
        with torch.no_grad():
            weight.copy_(self(weight))
            self.offset.fill_(OFF)
            self.keep.copy_(keep)
