"""What a method needs that acts while the model trains.

Its state must lie in the model (the mask of `masked` does, in buffers that checkpoints hold)
or follow from the number of the step; then a training that was killed goes on as it was.
"""

from collections.abc import Iterable

from secateurs.core.errors import PruneError
from secateurs.core.within import Within
from secateurs.data.tensors import mix
from secateurs.methods.task import Task, Train


def training(task: Task, method: str) -> tuple[Train, int]:
    """Return how the task trains and how many optimizer steps one training makes.

    Raises:
        PruneError: the task does not train, or does not say for how many steps.
    """
    if task.train is None:
        raise PruneError(
            f"{method} acts while the model trains, and there is no training; "
            "give the cut 1 epoch of recovery or more"
        )
    if task.steps is None:
        raise PruneError(
            f"{method} has to know how long the training is; pass Task(steps=...), "
            "batches of an epoch times epochs"
        )
    return task.train, task.steps


def chance(seed: int, *numbers: int) -> float:
    """Draw from 0 to 1, the same for the same numbers: what a resumed run draws again.

    >>> chance(0, 7) == chance(0, 7), chance(0, 7) == chance(0, 8)
    (True, False)
    """
    return float(mix(seed, *numbers) / 2**32)


def numbers(
    words: Iterable[str], names: Iterable[str], *, what: str, within: Within
) -> dict[str, float]:
    """Read `NAME=NUMBER` words for some of the names.

    >>> numbers(["fc1.weight=5"], ["fc1.weight", "fc2.weight"], what="c", within=Within(0))
    {'fc1.weight': 5.0}

    Raises:
        PruneError: a word is not of that form, or no such name is known.
        OptionError: a number does not lie within.
    """
    known, found = list(names), {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise PruneError(f"unknown name {name!r} in {what}; use one of {', '.join(known)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise PruneError(
                f"{what} {word!r} is not NAME=NUMBER; write for example {name}=1.5"
            ) from None
        within.check(f"{what} {word!r}", found[name])
    return found
