"""The schedules by name, for the command line and the law tests."""

from secateurs.schedule.curves import cubic, exponential, linear, one_cycle, one_shot
from secateurs.schedule.steps import Schedule

SCHEDULES: dict[str, Schedule] = {
    "one_shot": one_shot,
    "linear": linear,
    "cubic": cubic,
    "exponential": exponential,
    "one_cycle": one_cycle,
}
