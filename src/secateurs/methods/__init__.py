"""What does the paper say? One function per paper, a sentence made of the library's words."""

from secateurs.methods.brain_damage import brain_damage
from secateurs.methods.dcp import dcp
from secateurs.methods.deep_compression import deep_compression
from secateurs.methods.denil_redundancy import Redundancy, redundancy
from secateurs.methods.dns import dns
from secateurs.methods.feature_maps import chip, hrank
from secateurs.methods.fpgm import fpgm
from secateurs.methods.gradual import gradual
from secateurs.methods.grasp import grasp
from secateurs.methods.han import han
from secateurs.methods.inbound import inbound
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
from secateurs.methods.rigl import rigl
from secateurs.methods.scratch import scratch
from secateurs.methods.slimming import slimming
from secateurs.methods.snip import snip
from secateurs.methods.soft_filter import soft_filter
from secateurs.methods.strided import strided
from secateurs.methods.synflow import synflow
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Repair, Target, Task, Train

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
    "dns",
    "fpgm",
    "gradual",
    "grasp",
    "han",
    "hrank",
    "inbound",
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
    "rigl",
    "scratch",
    "slimming",
    "snip",
    "soft_filter",
    "strided",
    "synflow",
]
