"""How is a model wired? Tracing, labels that flow, coupled units, frozen ones and why."""

from secateurs.graph.cost import Cost, predict
from secateurs.graph.graph import Bucket, Contraction, Frozen, Graph, Slices
from secateurs.graph.reference import reference, run_double
from secateurs.graph.rewrite import rewrite
from secateurs.graph.trace import trace
from secateurs.graph.units import legal, removed_units

__all__ = [
    "Bucket",
    "Contraction",
    "Cost",
    "Frozen",
    "Graph",
    "Slices",
    "legal",
    "predict",
    "reference",
    "removed_units",
    "rewrite",
    "run_double",
    "trace",
]
