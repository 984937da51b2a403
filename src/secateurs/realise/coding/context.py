"""Bytes and back by the adaptive context coder: masks, whole numbers, bytes.

Compiled where possible, in Python otherwise; the bytes are the same, and so they are on
every platform, for the arithmetic is on integers only. Damaged bytes decode to damaged
numbers, never to an error: the container's checksum is what notices.

Source: the range coder of Martin 1979 with carries as in LZMA; counters mixed in the
logistic domain as in Mahoney 2005, "Adaptive weighing of context models".
"""

import numpy as np
from numpy.typing import NDArray

from secateurs.realise.coding import reference
from secateurs.realise.coding.native import call, encoded, native


def encode_mask(mask: NDArray[np.bool_], period: int = 1) -> bytes:
    """Return the coded bits of `mask`, (rows, columns).

    `period` is a distance within a row, from 1 to columns, at which masks look alike: the
    size of a convolution kernel, or the width of the picture that a row looks at.
    """
    bits = np.array(mask, np.uint8, order="C")
    if (lib := native()) is not None:
        return encoded(lib.mask_encode, bits, *bits.shape, period, room=bits.size // 4)
    coder = reference.Coder()
    reference.code_mask(coder, bits, period)
    return coder.finish()


def decode_mask(blob: bytes, rows: int, columns: int, period: int = 1) -> NDArray[np.bool_]:
    """Return the bool (rows, columns) that `encode_mask` was given."""
    bits = np.zeros((rows, columns), np.uint8)
    if (lib := native()) is not None:
        call(lib.mask_decode, bits, rows, columns, period, _array(blob), len(blob))
    else:
        reference.code_mask(reference.Coder(blob), bits, period)
    return bits.view(np.bool_)


def encode_values(values: NDArray[np.int32], column: NDArray[np.int32]) -> bytes:
    """Return the coded whole numbers, (n,), each below 2**30 in size.

    `column`, (n,), says which column of the matrix each stands in: a number is expected to
    resemble the one before it and the one last seen in its column.
    """
    v, c = np.ascontiguousarray(values, np.int32), np.ascontiguousarray(column, np.int32)
    if (lib := native()) is not None:
        columns = int(c.max(initial=0)) + 1
        return encoded(lib.values_encode, v, c, v.size, columns, room=4 * v.size)
    coder = reference.Coder()
    reference.code_values(coder, v.copy(), c)
    return coder.finish()


def decode_values(blob: bytes, column: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the int32 (n,) that `encode_values` was given with the same columns."""
    c = np.ascontiguousarray(column, np.int32)
    values = np.zeros(c.size, np.int32)
    if (lib := native()) is not None:
        columns = int(c.max(initial=0)) + 1
        call(lib.values_decode, values, c, c.size, columns, _array(blob), len(blob))
    else:
        reference.code_values(reference.Coder(blob), values, c)
    return values


def encode_bytes(data: bytes, *, width: int = 1, primer: bytes = b"") -> bytes:
    """Return coded bytes; they are rows of `width`, 1 to 8, alike place by place.

    `primer` is text of the same kind, known to the reader: the model has seen it before.
    """
    if (lib := native()) is not None:
        a, p = _array(data), _array(primer)
        arguments = a, a.size, width, p, p.size
        return encoded(lib.bytes_encode, *arguments, room=2 * a.size)
    coder = reference.Coder()
    reference.primed(width, primer).code(coder, bytearray(data))
    return coder.finish()


def decode_bytes(blob: bytes, size: int, *, width: int = 1, primer: bytes = b"") -> bytes:
    """Return the `size` bytes that `encode_bytes` was given with the same width and primer."""
    if (lib := native()) is not None:
        out, p = np.zeros(size, np.uint8), _array(primer)
        call(lib.bytes_decode, out, size, width, p, p.size, _array(blob), len(blob))
        return out.tobytes()
    data = bytearray(size)
    reference.primed(width, primer).code(reference.Coder(blob), data)
    return bytes(data)


def _array(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
