"""The methods by name, for the command line, and what each of them says of itself."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

from secateurs.core.errors import OptionError, UnknownNameError
from secateurs.core.within import check_within
from secateurs.methods.ac_dc import ac_dc
from secateurs.methods.brain_damage import brain_damage
from secateurs.methods.dcp import dcp
from secateurs.methods.deep_compression import deep_compression
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
from secateurs.methods.movement import movement
from secateurs.methods.nisp import nisp
from secateurs.methods.obd import obd
from secateurs.methods.obs import obs
from secateurs.methods.particles import particles
from secateurs.methods.planned import planned
from secateurs.methods.progressive import progressive
from secateurs.methods.random_units import random_units
from secateurs.methods.reduce_reuse import reduce_reuse
from secateurs.methods.resrep import resrep
from secateurs.methods.rigl import rigl
from secateurs.methods.scratch import scratch
from secateurs.methods.slimming import slimming
from secateurs.methods.snip import snip
from secateurs.methods.soft_filter import soft_filter
from secateurs.methods.soft_threshold import soft_threshold
from secateurs.methods.strided import strided
from secateurs.methods.synflow import synflow
from secateurs.methods.task import Pruned
from secateurs.methods.three_c import three_c
from secateurs.methods.uniform_width import uniform_width

Method = Callable[..., Pruned]
"""(task, target, *, options of its own) → a pruned copy of the task's model."""

METHODS: dict[str, Method] = {
    "magnitude": magnitude,
    "planned": planned,
    "dns": dns,
    "deep_compression": deep_compression,
    "particles": particles,
    "strided": strided,
    "obd": obd,
    "fpgm": fpgm,
    "soft_filter": soft_filter,
    "kernels_first": kernels_first,
    "nisp": nisp,
    "slimming": slimming,
    "hrank": hrank,
    "chip": chip,
    "group_taylor": group_taylor,
    "group_fisher": group_fisher,
    "depgraph": depgraph,
    "isomorphic": isomorphic,
    "greg": greg,
    "resrep": resrep,
    "han": han,
    "lasso_channels": lasso_channels,
    "three_c": three_c,
    "reduce_reuse": reduce_reuse,
    "inbound": inbound,
    "scratch": scratch,
    "uniform_width": uniform_width,
    "random": random_units,
    "gradual": gradual,
    "lottery": lottery,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "rigl": rigl,
    "progressive": progressive,
    "movement": movement,
    "soft_threshold": soft_threshold,
    "ac_dc": ac_dc,
    "brain_damage": brain_damage,
    "dcp": dcp,
    "obs": obs,
}


def method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method by name, once its options are known to exist and to fit.

    Raises:
        UnknownNameError: no such method, or it has no such option.
        OptionError: an option has a word that it does not know, or a number out of its range.
    """
    if name not in METHODS:
        raise UnknownNameError(f"unknown method {name!r}; use one of {', '.join(METHODS)}")
    known = options_of(METHODS[name])
    for key, value in options.items():
        if key not in known:
            takes = ", ".join(known) or "none"
            raise UnknownNameError(f"method {name!r} has no option {key!r}; it has {takes}")
        words = get_args(known[key].annotation)
        if words and all(isinstance(w, str) for w in words) and value not in words:
            raise OptionError(f"{key} is {value!r}; use one of {', '.join(words)}")
    check_within(METHODS[name], options)
    return METHODS[name]


def options_of(method: Method) -> dict[str, inspect.Parameter]:
    """List a method's own options by name, with defaults and types."""
    parameters = inspect.signature(method).parameters
    return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
