"""What a method is given, what it hands back, and how much should stay."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from torch import Tensor, nn

from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.core.example import Batch, Example
from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.realise.coding.shared import Coded
from secateurs.realise.compact import Compacted

Repair = Literal["none", "bn", "least-squares"]
"""How what is left is mended right after a cut, before any training.

`bn` gives the outputs of cut layers the mean and spread they had, through weights and biases,
and measures the statistics of batch norms anew; `least-squares` fits every cut layer to what
the original computed.
"""


class Train(Protocol):
    """Trains a model in place: the user's loop, or ours from `secateurs.run`."""

    def __call__(
        self,
        model: nn.Module,
        *,
        name: str,
        epochs: int | None = None,
        after_step: Callable[[int], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        """Train `model`, for as many epochs as its own settings say unless told otherwise.

        `name` says which part of the method this is, for progress and resuming;
        `after_step(step)` is called after every optimizer step, counted from 1; `penalty`
        is added to the loss.
        """


@dataclass(frozen=True)
class Task:
    """A trained model, and what a method may ask of its surroundings.

    The model is never changed: methods work on a copy.
    """

    model: nn.Module
    example: Example
    """What the model is called with, for tracing and for the proof."""
    train: Train | None = None
    """How the rest recovers; None skips training."""
    batches: Callable[[], Iterable[Batch]] | None = None
    """A few batches of the training split, for evidence and repair; with labels where a method
    looks at them."""
    steps: int | None = None
    """Optimizer steps of one `train` with its own epochs; None when nobody knows."""
    folder: Path | None = None
    """Where a method may keep what took long to measure; None keeps nothing."""
    repair: Repair = "bn"
    """How what is left is mended after a structural cut; needs `batches`."""
    seed: int = 0
    say: Callable[[str], None] = field(default=lambda line: None, repr=False)
    """Where a method reports what it is doing."""

    def __post_init__(self) -> None:
        """Refuse words that are no repair."""
        check_repair(self.repair)


def check_repair(word: str) -> None:
    """Raise `UnknownNameError` unless the word is a way to repair."""
    if word not in get_args(Repair):
        options = ", ".join(get_args(Repair))
        raise UnknownNameError(f"unknown repair {word!r}; use one of {options}")


@dataclass(frozen=True)
class Pruned:
    """What a method returns: the model that is left, and how it came to be."""

    model: nn.Module
    mask: Mask
    """Over the parameters of `model`; everything is True where units were removed physically."""
    graph: Graph | None = None
    """The original model's wiring, when units were removed."""
    compacted: Compacted | None = None
    """How the removal went, with its proof; None for masks."""
    notes: tuple[str, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Caption → SVG, for the report."""
    coded: Mapping[str, Coded] = field(default_factory=dict)
    """Parameters of `model` as the packed file holds them, where that is not as they are."""
    code: Mapping[str, Any] = field(default_factory=dict)
    """Options of `encode`: which codecs the file may use; empty for all that read quickly."""


Kind = Literal["density", "params", "macs"]


@dataclass(frozen=True)
class Target:
    """How much should stay: a fraction of the units, the parameters or the MACs, in whole steps.

    >>> Target("macs", 0.5)
    Target(kind='macs', fraction=0.5, multiple_of=1)
    """

    kind: Kind = "density"
    fraction: float = 0.3
    multiple_of: int = 1
    """Every site keeps a multiple of so many units, or all it has: 8 for tensor cores."""

    def __post_init__(self) -> None:
        """Refuse other kinds, fractions outside (0, 1] and multiples below 1."""
        if self.kind not in (kinds := get_args(Kind)):
            raise BudgetError(f"unknown target {self.kind!r}; use one of {', '.join(kinds)}")
        if not 0 < self.fraction <= 1:
            raise BudgetError(
                f"{self.kind} {self.fraction:g} is not a fraction to keep; "
                "use a number above 0 and at most 1"
            )
        if self.multiple_of < 1:
            raise BudgetError(f"cannot keep multiples of {self.multiple_of}; use 1 or more")

    def refuse_multiples(self, why: str) -> None:
        """Raise `BudgetError` where multiples are asked of a method that cannot keep to them."""
        if self.multiple_of > 1:
            raise BudgetError(f"{why}, so multiples of {self.multiple_of} cannot be kept")

    def at(self, fraction: float) -> "Target":
        """Return the same target at another fraction, for one round of several."""
        return replace(self, fraction=fraction)
