"""Fraction of the final sparsity reached at progress t; both 0 to 1."""


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
