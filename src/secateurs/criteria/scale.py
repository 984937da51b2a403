"""Scales: what a normalisation multiplies a channel by."""

from torch import Tensor

from secateurs.core.evidence import Evidence


def scale(e: Evidence) -> Tensor:
    """Mean of the absolute scales that multiply a unit, (units,).

    The mean, and not the sum, so that channels of a residual stream, which pass several
    normalisations, compare with those that pass one.

    Source: Liu et al. 2017, arXiv:1708.06519, section 3, |γ| of the batch norm.
    """
    return e.scale.abs().mean(dim=1)
