"""The control of every structural cut: the same small network, trained from nothing."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import mean, stdev
from typing import Literal

from torch import nn

from secateurs.core.errors import BudgetError, PruneError, ShapeError, UnknownNameError
from secateurs.core.within import Amount, Whole, checked
from secateurs.measure.compute import macs
from secateurs.methods.task import Pruned, Target, Task
from secateurs.recovery.rewind import reinitialise_

Budget = Literal["epochs", "compute"]


@checked
def scratch(
    task: Task,
    target: Target,
    *,
    of: str = "magnitude",
    budget: Budget = "epochs",
    epochs: Whole = 0,
    most: Amount = 0.0,
) -> Pruned:
    """Cut as another method does, forget all weights, and train the small network.

    With the dense network's epochs (scratch-E) or with its multiply-accumulates (scratch-B).

    Source: Liu, Sun, Zhou, Huang & Darrell 2019, "Rethinking the value of network pruning",
    arXiv:1810.05270, section 3.

    Args:
        task: model, training and what the other method asks for. Its training settings are
            those of a recovery; training from nothing wants a larger learning rate.
        target: how much stays.
        of: the method whose architecture is trained, with its default options and without
            its training.
        budget: `epochs` trains as long as the dense network was, `compute` as long as
            costs the same.
        epochs: how long the dense network was trained; 0 is the task's own.
        most: at most so many times the dense epochs under `compute`, 0 for no limit; the
            paper takes 2 on ImageNet.

    Raises:
        PruneError: the task does not train, or `compute` has no epochs to start from.
        UnknownNameError: no such method or budget.
    """
    from secateurs.methods.table import METHODS

    if budget not in ("epochs", "compute"):
        raise UnknownNameError(f"unknown budget {budget!r}; use one of epochs, compute")
    if of == "scratch" or of not in METHODS:
        others = ", ".join(name for name in METHODS if name != "scratch")
        raise UnknownNameError(f"unknown method {of!r} to take the shape of; use one of {others}")
    if task.train is None:
        raise PruneError(
            "training from scratch trains, and there is no training; "
            "give the cut 1 epoch of recovery or more"
        )
    if budget == "compute" and not epochs:
        raise PruneError(
            "an equal amount of compute is counted from the dense network's epochs; "
            "pass epochs=... (--option epochs=160)"
        )
    options = {"granularity": "out_channel"} if of == "magnitude" else {}
    pruned = METHODS[of](replace(task, train=None), target, **options)
    long: int | None = epochs or None
    if budget == "compute":
        dense, small = (macs(m, task.example) for m in (task.model, pruned.model))
        long = equal_compute(epochs, dense, small, most=most or None)
    model = from_nothing(pruned.model, seed=task.seed)
    task.train(model, name="scratch", epochs=long)
    note = f"trained from nothing in the shape of {of}, {long or 'the usual number of'} epochs"
    compacted = None if pruned.compacted is None else replace(pruned.compacted, model=model)
    return replace(pruned, model=model, compacted=compacted, notes=(*pruned.notes, note))


def equal_compute(
    epochs: int, dense_macs: int, small_macs: int, *, most: float | None = None
) -> int:
    """Return the epochs in which a small network costs what the dense one did in `epochs`.

    >>> equal_compute(160, 313_196_544, 206_143_488)
    243
    >>> equal_compute(90, 300, 100, most=2)
    180

    Source: Liu et al. 2019, section 3, scratch-B; int() and the limit are those of the
    authors' code.

    Raises:
        BudgetError: the small network is not smaller.
    """
    if not 0 < small_macs <= dense_macs:
        raise BudgetError(
            f"{small_macs} MACs are not fewer than the dense network's {dense_macs}; "
            "compare with a network that was cut"
        )
    longer = epochs * dense_macs // small_macs
    return longer if most is None else min(longer, int(epochs * most))


def milestones(epochs: int, at: Sequence[float] = (0.5, 0.75)) -> tuple[int, ...]:
    """Return the epochs after which a stepped learning rate falls, stretched with the total.

    >>> milestones(243)
    (121, 182)
    """
    return tuple(int(epochs * share) for share in at)


def from_nothing(model: nn.Module, *, seed: int) -> nn.Module:
    """Copy a model with all its weights drawn anew.

    Raises:
        StructureError: a module cannot draw its own weights.
    """
    fresh = copy.deepcopy(model)
    reinitialise_(fresh, seed)
    return fresh


@dataclass(frozen=True)
class Difference:
    """A mean difference and how sure of it one can be."""

    mean: float
    low: float
    high: float
    """The ends of the confidence interval."""
    confidence: float
    pairs: int

    @property
    def tie(self) -> bool:
        """Whether the interval holds zero."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        """Show the difference as a report does."""
        verdict = "a tie" if self.tie else "higher" if self.mean > 0 else "lower"
        return (
            f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {self.confidence:.0%} of "
            f"{self.pairs} pairs: {verdict}"
        )


def difference(
    ours: Sequence[float], control: Sequence[float], *, confidence: float = 0.95
) -> Difference:
    """Compare results of the same seeds, pair by pair, by Student's t.

    Raises:
        ShapeError: fewer than two pairs, or not one control for each.
    """
    from scipy.stats import t

    if len(ours) != len(control) or len(ours) < 2:
        raise ShapeError(
            f"{len(ours)} results and {len(control)} controls are no pairs to compare; "
            "give one control for each of two or more seeds"
        )
    gaps = [a - b for a, b in zip(ours, control, strict=True)]
    middle = mean(gaps)
    reach = float(t.ppf((1 + confidence) / 2, len(gaps) - 1)) * stdev(gaps) / sqrt(len(gaps))
    return Difference(middle, middle - reach, middle + reach, confidence, len(gaps))
