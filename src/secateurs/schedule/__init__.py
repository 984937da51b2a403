"""When do we act? Arithmetic from progress to fraction; nothing here needs torch."""

from secateurs.schedule.curves import cubic, exponential, linear, one_cycle, one_shot
from secateurs.schedule.steps import Schedule, densities, geometric, rounds
from secateurs.schedule.table import SCHEDULES

__all__ = [
    "SCHEDULES",
    "Schedule",
    "cubic",
    "densities",
    "exponential",
    "geometric",
    "linear",
    "one_cycle",
    "one_shot",
    "rounds",
]
