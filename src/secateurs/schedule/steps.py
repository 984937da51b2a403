"""Schedules made from numbers, and the densities a schedule asks for."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]
"""Progress, 0 to 1 → fraction of the final sparsity, 0 to 1."""


def rounds(n: int) -> Schedule:
    """Make a staircase of n equal steps, the first taken at progress 1/n.

    >>> [rounds(2)(t) for t in (0.0, 0.4, 0.5, 1.0)]
    [0.0, 0.0, 0.5, 1.0]

    Raises:
        BudgetError: n is below 1.
    """
    if n < 1:
        raise _refusal(f"cannot prune in {n} rounds; use 1 or more")
    # 0.29 * 100 is 28.999...; the nudge is far below any step a loop can take.
    return lambda t: math.floor(t * n + 1e-9) / n


def geometric(density: float) -> Schedule:
    """Make a schedule that keeps the same share of what is left in equal times.

    >>> [round(geometric(0.25)(t), 3) for t in (0.0, 0.5, 1.0)]
    [0.0, 0.667, 1.0]

    Raises:
        BudgetError: the final density is not above 0 and below 1.

    Source: Frankle & Carbin 2019, arXiv:1803.03635, iterative pruning.
    """
    if not 0 < density < 1:
        raise _refusal(f"no schedule keeps equal shares down to density {density}; use 0 to 1")
    return lambda t: (1 - density**t) / (1 - density)


def densities(
    schedule: Schedule, n: int, density: float, *, start: float = 1.0
) -> tuple[float, ...]:
    """List the densities after each of n cuts, from `start` down to exactly `density`.

    >>> from secateurs.schedule.curves import linear
    >>> densities(linear, 2, 0.5)
    (0.75, 0.5)

    Raises:
        BudgetError: n is below 1, or `density` and `start` are not in order within 0 to 1.
    """
    if n < 1:
        raise _refusal(f"cannot prune in {n} cuts; use 1 or more")
    if not 0 <= density <= start <= 1:
        raise _refusal(
            f"cannot go from density {start} to {density}; use 0 <= density <= start <= 1"
        )
    done = (schedule(i / n) for i in range(1, n + 1))
    return tuple(start * (1 - part) + density * part for part in done)


def _refusal(message: str) -> Exception:
    # Imported here because the errors' package brings in torch, which schedules do without.
    from secateurs.core.errors import BudgetError

    return BudgetError(message)
