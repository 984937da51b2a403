"""Activations: what a unit says, or hears, on data."""

from torch import Tensor

from secateurs.core.errors import ShapeError
from secateurs.core.evidence import Evidence


def activation_rms(e: Evidence) -> Tensor:
    """Root mean square of the outputs a unit feeds, (units,)."""
    return e.activation_square.mean(dim=1).sqrt()


def wanda(e: Evidence) -> Tensor:
    """Sum over a unit's weights of |w| · rms of the input it multiplies, (units,).

    The paper ranks the elements of each output apart: `elements(model, per_output=True)`.

    Raises:
        ShapeError: the kinds do not speak of the same weights, as over coupled channels.

    Source: Sun et al. 2024, arXiv:2306.11695, eq. 1, with the root mean square in place
    of the norm over samples, which only scales a layer.
    """
    if e.weight.shape != e.input_square.shape:
        raise ShapeError(
            f"wanda needs an input for every weight, but found weights {tuple(e.weight.shape)} "
            f"and inputs {tuple(e.input_square.shape)}; use sites over single parameters"
        )
    return (e.weight.abs() * e.input_square.sqrt()).sum(dim=1)
