"""Evidence made up, for trying a criterion on."""

import torch
from torch import Generator

from secateurs.core.evidence import Evidence

SIGNED = ("weight", "gradient", "activation")
POSITIVE = (
    "gradient_square",
    "curvature",
    "activation_variance",
    "activation_square",
    "input_square",
    "scale",
)


def some_evidence(*, units: int, size: int, seed: int = 0) -> Evidence:
    """Random evidence of every kind, float64, (units, size) each.

    >>> some_evidence(units=6, size=9).weight.shape
    torch.Size([6, 9])
    """
    generator = Generator().manual_seed(seed)
    kinds = {
        kind: torch.randn(units, size, generator=generator, dtype=torch.float64)
        for kind in SIGNED + POSITIVE
    }
    return Evidence(**{kind: t.abs() if kind in POSITIVE else t for kind, t in kinds.items()})
