"""How the learning rate moves through training. Arithmetic without torch."""

import math
from typing import Literal

RateSchedule = Literal["constant", "cosine", "linear", "step", "one_cycle"]
RATE_SCHEDULES: tuple[RateSchedule, ...] = ("constant", "cosine", "linear", "step", "one_cycle")


def rate(schedule: RateSchedule, t: float, *, warmup: float = 0.0) -> float:
    """Return the learning rate at progress `t`, 0 to 1, as a fraction of its peak.

    `step` divides by ten at 1/2 and 3/4 of the way (He et al. 2016). `one_cycle` climbs
    for 30 % and falls by a cosine (Smith 2018). The others first climb linearly over the
    fraction `warmup` and then follow their curve from its start.

    >>> [round(rate("cosine", t), 3) for t in (0, 0.5, 1)], rate("step", 0.6)
    ([1.0, 0.5, 0.0], 0.1)
    """
    if schedule == "one_cycle":
        warmup = 0.3
    if t < warmup:
        return 0.04 + 0.96 * t / warmup
    u = (t - warmup) / (1 - warmup) if warmup < 1 else 0.0
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - u
    if schedule == "step":
        return 0.01 if u >= 0.75 else 0.1 if u >= 0.5 else 1.0
    return 0.5 * (1 + math.cos(math.pi * u))
