"""How long streams take to read, so that a small file is never slower than the dense one.

Estimates follow from what is coded alone, not from a clock: the same tensors make the same
file on every machine. They are for one core of some years ago, compiled coder; a reader with
more cores has time to spare.
"""

import numpy as np
from numpy.typing import NDArray

DISK = 100e6
"""Bytes a second of the disk that the dense file would be read from."""
SOON = 0.5
"""Seconds that a file of any size may take."""
AT_ONCE = 1e-3
"""Seconds that any tensor may take, however small."""
SPREAD = 12e-9
"""Seconds a weight takes to reach its place, whatever the codec."""
MASK = 36e-9
"""Seconds the context coder takes for an element of a mask."""
DECISION = 25e-9
"""Seconds it takes for one of the decisions that make up a whole number."""
BYTE = 400e-9
"""Seconds it takes for a byte of plain values."""


def within(weights: int, element: int, whole: int) -> float:
    """Return the seconds that a tensor's streams may take, beside putting it together.

    Args:
        weights: of the tensor, of `element` bytes each.
        whole: dense bytes of the file that it is part of, all of which share `SOON`.
    """
    dense = weights * element
    return max(AT_ONCE, dense / DISK - SPREAD * weights, SOON * dense / max(1, whole))


def of_mask(codec: str, weights: int) -> float:
    """Return the seconds that the indices of so many weights take to read."""
    return MASK * weights if codec == "context" else 0.0


def of_numbers(codec: str, numbers: NDArray[np.int32]) -> float:
    """Return the seconds that whole numbers take: sign, length and bits are a decision each.

    >>> round(of_numbers("context", np.array([0, 1, -5], np.int32)) / DECISION)
    11
    """
    if codec != "context":
        return 0.0
    lengths = np.frexp(numbers.astype(np.float64))[1]
    return DECISION * float(numbers.size + 2 * lengths.sum(dtype=np.int64))


def of_bytes(codec: str, rows: NDArray[np.uint8]) -> float:
    """Return the seconds that plain values take, their bytes being (n, width)."""
    return BYTE * rows.size if codec == "context" else 0.0
