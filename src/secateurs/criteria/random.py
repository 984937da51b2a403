"""Chance: the baseline every criterion has to beat."""

import torch
from torch import Generator, Tensor

from secateurs.core.cut import Criterion
from secateurs.core.evidence import Evidence


def random(generator: Generator) -> Criterion:
    """Make a criterion that scores every unit uniformly in 0 to 1, drawing from `generator`.

    >>> from secateurs.core import Evidence
    >>> criterion = random(torch.Generator().manual_seed(0))
    >>> criterion(Evidence(weight=torch.ones(3, 2))).shape
    torch.Size([3])
    """

    def scores(e: Evidence) -> Tensor:
        weight = e.weight
        drawn = torch.rand(weight.shape[0], generator=generator, device=generator.device)
        return drawn.to(weight.device)

    return scores
