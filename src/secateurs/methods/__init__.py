"""What does the paper say? One function per paper, a sentence made of the library's words."""

from secateurs.methods.deep_compression import deep_compression
from secateurs.methods.dns import dns
from secateurs.methods.fpgm import fpgm
from secateurs.methods.gradual import gradual
from secateurs.methods.grasp import grasp
from secateurs.methods.han import han
from secateurs.methods.kernels_first import kernels_first
from secateurs.methods.lottery import lottery
from secateurs.methods.magnitude import magnitude
from secateurs.methods.nisp import nisp
from secateurs.methods.obd import obd
from secateurs.methods.random_units import random_units
from secateurs.methods.rigl import rigl
from secateurs.methods.slimming import slimming
from secateurs.methods.snip import snip
from secateurs.methods.soft_filter import soft_filter
from secateurs.methods.synflow import synflow
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Target, Task, Train

__all__ = [
    "METHODS",
    "Pruned",
    "Target",
    "Task",
    "Train",
    "deep_compression",
    "dns",
    "fpgm",
    "gradual",
    "grasp",
    "han",
    "kernels_first",
    "lottery",
    "magnitude",
    "nisp",
    "obd",
    "random_units",
    "rigl",
    "slimming",
    "snip",
    "soft_filter",
    "synflow",
]
