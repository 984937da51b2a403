"""Which networks? Those of the papers, and any other by name."""

from secateurs.models.create import create, input_shape
from secateurs.models.table import MODELS, Reference

__all__ = ["MODELS", "Reference", "create", "input_shape"]
