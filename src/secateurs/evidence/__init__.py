"""What was measured? Weights, gradients and activations, by parameter name.

A measurement is a dict from parameter name to a tensor of the parameter's shape, or of
length 1 along an axis it says nothing about. Functions that measure several kinds at once
return a dict of such dicts, to be passed on whole:

    scores = score(sites, taylor, weight=weights(model), **gradients(model, batches, loss))

The model is measured in evaluation mode, and left as it was found.
"""

from secateurs.core.example import Batch
from secateurs.evidence.activations import activations
from secateurs.evidence.curvature import curvature
from secateurs.evidence.gauss_newton import gauss_newton
from secateurs.evidence.gradients import Loss, gradients
from secateurs.evidence.inf_fs import inf_fs
from secateurs.evidence.inputs import input_moments
from secateurs.evidence.maps import map_statistics
from secateurs.evidence.propagated import propagate
from secateurs.evidence.recursion import recursion
from secateurs.evidence.scales import scales
from secateurs.evidence.weights import filter_norms, weights

__all__ = [
    "Batch",
    "Loss",
    "activations",
    "curvature",
    "filter_norms",
    "gauss_newton",
    "gradients",
    "inf_fs",
    "input_moments",
    "map_statistics",
    "propagate",
    "recursion",
    "scales",
    "weights",
]
