"""Relative gaps: how far it is from one kept weight to the next, in fields of fixed width.

Source: Han, Mao & Dally 2016, arXiv:1510.00149, section 2, figure 2. A field stores the gap
less one; where a gap is too long, a field at its maximum moves on as far as it can and
carries a zero weight, a filler.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]


def to_gaps(mask: NDArray[np.bool_], bits: int) -> tuple[Ints, Ints]:
    """Return fields of `bits` bits and the places they lead to, both (fields,).

    Places where the flat mask is False are fillers. Zeros after the last kept weight take no
    fields.

    >>> flat = np.zeros(16, bool)
    >>> flat[[1, 4, 15]] = True
    >>> fields, places = to_gaps(flat, bits=3)
    >>> fields.tolist(), places.tolist()
    ([1, 2, 7, 2], [1, 4, 12, 15])
    """
    fields = gaps(mask, bits)
    return fields, from_gaps(fields)


def gaps(mask: NDArray[np.bool_], bits: int) -> Ints:
    """Return the fields alone, of at most 8 bits, uint8: a large layer has many."""
    gap = np.diff(np.flatnonzero(mask), prepend=-1) - 1
    fillers = gap >> bits
    fields = np.full(gap.size + int(fillers.sum()), (1 << bits) - 1, np.uint8)
    fields[np.cumsum(fillers + 1) - 1] = gap & ((1 << bits) - 1)
    return fields


def from_gaps(fields: Ints) -> Ints:
    """Return the places, (fields,), that the fields lead to."""
    return np.cumsum(fields, dtype=np.int64) + np.arange(fields.size)
