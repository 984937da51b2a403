"""Magnitude: small weights matter little."""

import torch
from torch import Tensor

from secateurs.core.evidence import Evidence


def l1(e: Evidence) -> Tensor:
    """Sum of the absolute weights of each unit, (units,); in float32 for half precision.

    Source: Han et al. 2015, arXiv:1506.02626, for elements; Li et al. 2017,
    arXiv:1608.08710, for filters.
    """
    return _lengths(e.weight, 1)


def l2(e: Evidence) -> Tensor:
    """Euclidean length of each unit's weights, (units,); in float32 for half precision."""
    return _lengths(e.weight, 2)


def _lengths(rows: Tensor, order: int) -> Tensor:
    wide = torch.promote_types(rows.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(rows, ord=order, dim=1, dtype=wide)
    return lengths
