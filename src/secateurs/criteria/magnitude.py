"""Magnitude: small weights matter little."""

import torch
from torch import Tensor

from secateurs.core.evidence import Evidence


def l1(e: Evidence) -> Tensor:
    """Sum of the absolute weights of each unit, (units,).

    Source: Han et al. 2015, arXiv:1506.02626, for elements; Li et al. 2017,
    arXiv:1608.08710, for filters.
    """
    lengths: Tensor = torch.linalg.vector_norm(e.weight, ord=1, dim=1)
    return lengths


def l2(e: Evidence) -> Tensor:
    """Euclidean length of each unit's weights, (units,)."""
    lengths: Tensor = torch.linalg.vector_norm(e.weight, ord=2, dim=1)
    return lengths
