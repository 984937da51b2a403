"""What does a model cost? Parameters, non-zeros, bytes, MACs, time and accuracy, measured."""

from secateurs.measure.accuracy import Accuracy, Batches, evaluate
from secateurs.measure.compute import macs, macs_by_layer
from secateurs.measure.latency import Latency, Speedup, latency, speedups
from secateurs.measure.size import effective, file_bytes, nonzeros, parameters

__all__ = [
    "Accuracy",
    "Batches",
    "Latency",
    "Speedup",
    "effective",
    "evaluate",
    "file_bytes",
    "latency",
    "macs",
    "macs_by_layer",
    "nonzeros",
    "parameters",
    "speedups",
]
