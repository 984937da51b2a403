"""Isomorphic pruning: channels compete only with those of the same topology."""

from secateurs.methods.group_taylor import group_taylor
from secateurs.methods.task import Pruned, Target, Task


def isomorphic(task: Task, target: Target, *, exclude: tuple[str, ...] = ()) -> Pruned:
    """Remove the channels of least group Taylor score, ranked among sites wired alike.

    Residual streams, insides of blocks and heads have scores of different scales; each such
    group keeps the same fraction of its channels, whatever the scale.

    Source: Fang et al. 2024, "Isomorphic pruning for vision models", arXiv:2407.04616.
    Deviation: sub-structures are compared by the axes of the parameters they lie in, not by
    graph isomorphism. Other methods rank so by their option `ranking=isomorphic`.

    Args:
        task: model, labelled data and training.
        target: how much stays.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: the task has no batches.
        BudgetError: the target cannot be met.
    """
    return group_taylor(task, target, ranking="isomorphic", exclude=exclude)
