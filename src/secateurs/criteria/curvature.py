"""Second-order: the loss increase a quadratic model predicts."""

from torch import Tensor

from secateurs.core.evidence import Evidence


def obd(e: Evidence) -> Tensor:
    """Loss increase predicted when a unit alone is set to zero, (units,).

    Source: LeCun, Denker & Solla 1989, "Optimal Brain Damage", recipe step 4:
    s = h w² / 2, here summed over the weights of a unit.
    """
    return (e.curvature * e.weight.square() / 2).sum(dim=1)


def fisher(e: Evidence) -> Tensor:
    """`obd` with the squared gradient in place of the curvature, (units,).

    Source: Theis et al. 2018, arXiv:1801.05787, eq. 7, over weights.
    """
    return (e.gradient_square * e.weight.square() / 2).sum(dim=1)
