"""First-order Taylor: how far the loss moves when a unit is set to zero."""

from torch import Tensor

from secateurs.core.evidence import Evidence


def taylor(e: Evidence) -> Tensor:
    """Sum over a unit's weights of |w · gradient|, in units of the loss, (units,).

    Signs do not cancel, so a unit in front of a batch norm, whose changes of scale leave
    the loss alone, still scores.

    Source: Molchanov et al. 2017, arXiv:1611.06440, the absolute first-order term, taken
    over weights. Deviation: their units are feature maps, so they sum inside the bars.
    """
    return (e.weight * e.gradient).abs().sum(dim=1)


def taylor_gate(e: Evidence) -> Tensor:
    """Square of the sum of w · gradient over a unit, in squared units of the loss, (units,).

    The importance of a gate that multiplies the whole unit: signs cancel.

    Source: Molchanov et al. 2019, arXiv:1906.10771, section 3.2. Deviation: the square of
    the mean gradient over batches rather than the mean of squares.
    """
    return (e.weight * e.gradient).sum(dim=1).square()
