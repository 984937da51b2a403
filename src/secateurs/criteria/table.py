"""The criteria by name, for the command line and the law tests.

`random` is not here: it is made from a generator.
"""

from secateurs.core.cut import Criterion
from secateurs.criteria.activation import activation_rms, wanda
from secateurs.criteria.curvature import fisher, obd
from secateurs.criteria.geometry import fpgm
from secateurs.criteria.magnitude import l1, l2
from secateurs.criteria.scale import scale
from secateurs.criteria.taylor import taylor, taylor_gate

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "scale": scale,
    "taylor": taylor,
    "taylor_gate": taylor_gate,
    "obd": obd,
    "fisher": fisher,
    "activation_rms": activation_rms,
    "wanda": wanda,
}
