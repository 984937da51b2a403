"""The nouns and the one cut. Everything is keep-positive: higher, True, denser = stays."""

from secateurs.core.cut import Criterion, decide, keep_top, scatter, score, select
from secateurs.core.errors import (
    BudgetError,
    EvidenceError,
    FileError,
    MissingDependencyError,
    PruneError,
    ShapeError,
    StructureError,
    UnknownNameError,
)
from secateurs.core.evidence import Evidence
from secateurs.core.example import Example, arguments, call, floats, map_tensors, tensors
from secateurs.core.mask import Mask
from secateurs.core.require import require
from secateurs.core.site import Decision, Quota, Scores, Site, Sites

__all__ = [
    "BudgetError",
    "Criterion",
    "Decision",
    "Evidence",
    "EvidenceError",
    "Example",
    "FileError",
    "Mask",
    "MissingDependencyError",
    "PruneError",
    "Quota",
    "Scores",
    "ShapeError",
    "Site",
    "Sites",
    "StructureError",
    "UnknownNameError",
    "arguments",
    "call",
    "decide",
    "floats",
    "keep_top",
    "map_tensors",
    "require",
    "scatter",
    "score",
    "select",
    "tensors",
]
