"""Zeros that are really faster: layers that skip their zeros, chosen by timing, on the CPU."""

from secateurs.realise.sparse.accelerate import accelerate
from secateurs.realise.sparse.accelerated import Accelerated, LayerPlan
from secateurs.realise.sparse.choice import Choice, Chosen
from secateurs.realise.sparse.files import load_accelerated
from secateurs.realise.sparse.native import available

__all__ = [
    "Accelerated",
    "Choice",
    "Chosen",
    "LayerPlan",
    "accelerate",
    "available",
    "load_accelerated",
]
