"""What a network does, in the words of the sparse run time, and calls of torch for the rest."""

from dataclasses import dataclass, field, replace
from math import inf

from torch import Tensor, fx


@dataclass(frozen=True)
class Product:
    """A linear layer or convolution, with its batch norm folded in, a sum and a clamp behind it."""

    name: str
    """The value it makes: a node of the traced program."""
    source: str
    param: str
    """The user's name of the weight."""
    weight: Tensor = field(repr=False)
    """float32, (out, in // groups, kernel height, kernel width); 1 x 1 for a linear layer."""
    bias: Tensor = field(repr=False)
    """float32, (out,)."""
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    linear: bool = False
    """Whether it maps the last axis of its source, and not the second."""
    residual: str | None = None
    low: float = -inf
    high: float = inf
    factor: Tensor | None = field(default=None, repr=False)
    """float64, (out,): what a norm still has to multiply the filters with, see `folded`."""

    @property
    def clamped(self) -> bool:
        """Whether nothing more can be fused behind it."""
        return (self.low, self.high) != (-inf, inf)

    def folded(self) -> "Product":
        """Return the product with its factor in its weights.

        Until then the weights are the program's own, so that a network is never in memory twice.
        """
        if self.factor is None:
            return self
        weight = self.weight.double() * self.factor.view(-1, 1, 1, 1)
        return replace(self, weight=weight.float(), factor=None)


@dataclass(frozen=True)
class Pool:
    """The greatest value of each window."""

    name: str
    source: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True)
class Mean:
    """The mean over all positions of each channel."""

    name: str
    source: str


@dataclass(frozen=True)
class Sum:
    """One value, or two of the same shape added, then clamped."""

    name: str
    source: str
    other: str | None
    low: float = -inf
    high: float = inf

    @property
    def clamped(self) -> bool:
        """Whether nothing more can be fused behind it."""
        return (self.low, self.high) != (-inf, inf)


@dataclass(frozen=True)
class Call:
    """Whatever torch does itself."""

    name: str
    node: fx.Node


Op = Product | Pool | Mean | Sum | Call


def reads(op: Op) -> list[str]:
    """List the values an operation reads."""
    if isinstance(op, Call):
        return [n.name for n in op.node.all_input_nodes]
    second = op.residual if isinstance(op, Product) else op.other if isinstance(op, Sum) else None
    return [op.source] if second is None else [op.source, second]
