"""Whether one classifier is right more often than another, on the same examples."""

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.measure.accuracy import Batches
from secateurs.measure.forward import evaluation, scored


@dataclass(frozen=True)
class Paired:
    """How two classifiers differ on the same examples."""

    only_first: int
    """Examples that the first gets right and the second wrong."""
    only_second: int
    total: int
    confidence: float = 0.95

    @property
    def difference(self) -> float:
        """The first's accuracy less the second's, -1 to 1."""
        return (self.only_first - self.only_second) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the difference's confidence interval over examples.

        >>> low, high = Paired(10, 10, 1000).interval
        >>> round(low, 4), round(high, 4)
        (-0.009, 0.009)

        Source: Agresti & Min 2005, "Simple improved confidence intervals for comparing
        matched proportions": Wald's interval after adding 1/2 to each cell.
        """
        b, c, n = self.only_first + 0.5, self.only_second + 0.5, self.total + 2
        middle = (b - c) / n
        error = (b + c - (b - c) ** 2 / n) ** 0.5 / n
        reach = NormalDist().inv_cdf((1 + self.confidence) / 2) * error
        return max(-1.0, middle - reach), min(1.0, middle + reach)

    @property
    def verdict(self) -> str:
        """Say which is better: `higher`, `lower`, or `a tie` where the interval holds zero."""
        low, high = self.interval
        return "a tie" if low <= 0 <= high else "higher" if low > 0 else "lower"

    def __str__(self) -> str:
        """Show the difference in points."""
        low, high = self.interval
        return (
            f"{100 * self.difference:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}], "
            f"{self.confidence:.0%} over {self.total} test examples: {self.verdict}"
        )


def paired(first: Tensor, second: Tensor) -> Paired:
    """Compare what two classifiers got right, bool (examples,) each, in the same order."""
    assert first.shape == second.shape
    return Paired(int((first & ~second).sum()), int((~first & second).sum()), len(first))


def hits(model: nn.Module, batches: Batches) -> Tensor:
    """Mark the examples that a model gets right, in order: bool (examples,).

    Raises:
        ShapeError: the labels do not fit the scores.
        PruneError: there are no examples.
    """
    found = list[Tensor]()
    with evaluation(model):
        for scores, labels in scored(model, batches):
            found.append((scores.argmax(dim=1) == labels).flatten().cpu())
    if not found:
        raise PruneError("cannot compare models on no examples; the loader gave no batches")
    return torch.cat(found)
