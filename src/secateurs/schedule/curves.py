"""Fraction of the final sparsity reached at progress t; both 0 to 1."""

import math


def one_shot(t: float) -> float:
    """Everything at once, as soon as anything is cut.

    >>> [one_shot(t) for t in (0.0, 0.5, 1.0)]
    [0.0, 1.0, 1.0]
    """
    return float(t > 0)


def linear(t: float) -> float:
    """The same amount at every moment.

    >>> [linear(t) for t in (0.0, 0.5, 1.0)]
    [0.0, 0.5, 1.0]
    """
    return t


def cubic(t: float) -> float:
    """Fast while weights are plenty, slow towards the end.

    >>> [cubic(t) for t in (0.0, 0.5, 1.0)]
    [0.0, 0.875, 1.0]

    Source: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1, from a dense start.
    """
    return 1 - (1 - t) ** 3


def exponential(t: float) -> float:
    """Half of what is left in every tenth of the way, scaled to end at 1.

    >>> [round(exponential(t), 3) for t in (0.0, 0.1, 1.0)]
    [0.0, 0.5, 1.0]
    """
    return float((1 - 2.0 ** (-10 * t)) / (1 - 2.0**-10))


def one_cycle(t: float) -> float:
    """Hardly anything at first, most around a third of the way, and on to the very end.

    >>> [round(one_cycle(t), 3) for t in (0.0, 0.1, 0.35, 0.6, 1.0)]
    [0.0, 0.02, 0.472, 0.968, 1.0]

    Source: Hubens et al. 2021, arXiv:2107.02086, eq. 2, with alpha 14 and beta 5, shifted to
    begin at 0.
    """

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    start = sigmoid(-5)
    return (sigmoid(14 * t - 5) - start) / (sigmoid(9) - start)
