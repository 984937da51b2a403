"""What does the paper say? One function per paper, a sentence made of the library's words.

`METHODS` holds them by name; `secateurs.methods.dns.dns` is where one is written.
"""

from secateurs.methods.denil_redundancy import Redundancy, redundancy
from secateurs.methods.depgraph import depgraph
from secateurs.methods.dns import dns
from secateurs.methods.feature_maps import chip, hrank
from secateurs.methods.fpgm import fpgm
from secateurs.methods.gradual import gradual
from secateurs.methods.grasp import grasp
from secateurs.methods.greg import greg
from secateurs.methods.group_fisher import group_fisher
from secateurs.methods.group_taylor import group_taylor
from secateurs.methods.han import han
from secateurs.methods.inbound import inbound
from secateurs.methods.isomorphic import isomorphic
from secateurs.methods.kernels_first import kernels_first
from secateurs.methods.lasso_channels import lasso_channels
from secateurs.methods.lottery import lottery
from secateurs.methods.magnitude import magnitude
from secateurs.methods.nisp import nisp
from secateurs.methods.obd import obd
from secateurs.methods.obs import obs
from secateurs.methods.particles import particles
from secateurs.methods.random_units import random_units
from secateurs.methods.reduce_reuse import reduce_reuse
from secateurs.methods.resrep import resrep
from secateurs.methods.rigl import rigl
from secateurs.methods.scratch import scratch
from secateurs.methods.slimming import slimming
from secateurs.methods.snip import snip
from secateurs.methods.soft_filter import soft_filter
from secateurs.methods.strided import strided
from secateurs.methods.synflow import synflow
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Repair, Target, Task, Train
from secateurs.methods.uniform_width import uniform_width

__all__ = [
    "METHODS",
    "Pruned",
    "Redundancy",
    "Repair",
    "Target",
    "Task",
    "Train",
    "brain_damage",
    "chip",
    "dcp",
    "deep_compression",
    "depgraph",
    "dns",
    "fpgm",
    "gradual",
    "grasp",
    "greg",
    "group_fisher",
    "group_taylor",
    "han",
    "hrank",
    "inbound",
    "isomorphic",
    "kernels_first",
    "lasso_channels",
    "lottery",
    "magnitude",
    "nisp",
    "obd",
    "obs",
    "particles",
    "random_units",
    "reduce_reuse",
    "redundancy",
    "resrep",
    "rigl",
    "scratch",
    "slimming",
    "snip",
    "soft_filter",
    "strided",
    "synflow",
    "uniform_width",
]
