"""Which units matter? Pure formulas from evidence to scores; higher means keep."""

from secateurs.criteria.activation import activation_rms, wanda
from secateurs.criteria.curvature import fisher, obd
from secateurs.criteria.geometry import fpgm
from secateurs.criteria.magnitude import l1, l2
from secateurs.criteria.random import random
from secateurs.criteria.scale import scale
from secateurs.criteria.table import CRITERIA
from secateurs.criteria.taylor import taylor, taylor_gate

__all__ = [
    "CRITERIA",
    "activation_rms",
    "fisher",
    "fpgm",
    "l1",
    "l2",
    "obd",
    "random",
    "scale",
    "taylor",
    "taylor_gate",
    "wanda",
]
