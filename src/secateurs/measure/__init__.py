"""What does a model cost? Parameters, non-zeros, bytes, MACs, time and accuracy, measured."""

from secateurs.measure.accuracy import Accuracy, Batches, evaluate
from secateurs.measure.compute import macs, macs_by_layer
from secateurs.measure.environment import environment
from secateurs.measure.html import render
from secateurs.measure.latency import Latency, Speedup, latency, speedups
from secateurs.measure.perlayer import LayerRow, layer_rows
from secateurs.measure.report import Curve, Proof, Report, Row, measure_row, write_whole
from secateurs.measure.size import effective, file_bytes, nonzeros, parameters
from secateurs.measure.table import COLUMNS, cells, markdown

__all__ = [
    "COLUMNS",
    "Accuracy",
    "Batches",
    "Curve",
    "Latency",
    "LayerRow",
    "Proof",
    "Report",
    "Row",
    "Speedup",
    "cells",
    "effective",
    "environment",
    "evaluate",
    "file_bytes",
    "latency",
    "layer_rows",
    "macs",
    "macs_by_layer",
    "markdown",
    "measure_row",
    "nonzeros",
    "parameters",
    "render",
    "speedups",
    "write_whole",
]
