"""Whole numbers as bits: varints, fields of one width, fields of many widths. Big end first."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import FileError

Ints = NDArray[Any]


def varint(value: int) -> bytes:
    """Return a number of 0 or more, seven bits a byte, lowest first, as in LEB128.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Bytes read front to back; running off the end is a `FileError` that names the field."""

    def __init__(self, blob: bytes, where: str) -> None:
        """Start at the front of `blob`, which is called `where` in messages."""
        self.blob, self.where, self.at = blob, where, 0

    def take(self, size: int, field: str) -> bytes:
        """Return the next `size` bytes."""
        left = len(self.blob) - self.at
        if size > left:
            raise FileError(f"{self.where}: {field} should take {size} bytes, {left} are left")
        self.at += size
        return self.blob[self.at - size : self.at]

    def varint(self, field: str, most: int = 2**62) -> int:
        """Return the next varint, at most `most`."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1, field)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if value > most:
                    raise FileError(f"{self.where}: {field} is {value}, more than {most}")
                return value
        raise FileError(f"{self.where}: {field} is a number without an end")

    def rest(self) -> bytes:
        """Return everything not yet read."""
        return self.take(len(self.blob) - self.at, "the rest")


def join(parts: Iterable[bytes]) -> bytes:
    """Return byte strings in one: each but the last with its size before it."""
    *first, last = parts
    return b"".join(varint(len(part)) + part for part in first) + last


def split(blob: bytes, count: int, where: str) -> list[bytes]:
    """Return the `count` byte strings that `join` was given."""
    reader = Reader(blob, where)
    first = [reader.take(reader.varint("a size"), "a part") for _ in range(count - 1)]
    return [*first, reader.rest()]


def pack(values: Ints, width: int) -> bytes:
    """Return fields of `width` bits each; the last byte is filled with zeros.

    >>> pack(np.array([1, 2, 7, 2]), 3).hex()
    '2ba0'
    """
    bits = np.empty((values.size, width), np.uint8)
    for i in range(width):
        bits[:, i] = (values >> (width - 1 - i)) & 1
    return np.packbits(bits.reshape(-1)).tobytes()


def unpack(blob: bytes, width: int, count: int, where: str) -> Ints:
    """Return the `count` fields of `width` bits, int64; `FileError` where `blob` is too short."""
    bits = flags(blob, width * count, where).reshape(count, width)
    values = np.zeros(count, np.int64)
    for i in range(width):
        values = values << 1 | bits[:, i]
    return values


BLOCK = 1 << 18
"""Fields written at once: their bits take a byte each meanwhile."""


def write(values: Ints, widths: Ints) -> bytes:
    """Return fields of their own widths, 0 to 62 bits each."""
    done, rest = [], np.zeros(0, np.uint8)
    for start in range(0, widths.size, BLOCK):
        block = slice(start, start + BLOCK)
        bits = np.concatenate([rest, _bits(values[block], widths[block])])
        whole = bits.size // 8 * 8
        done.append(np.packbits(bits[:whole]).tobytes())
        rest = bits[whole:]
    return b"".join(done) + np.packbits(rest).tobytes()


def _bits(values: Ints, widths: Ints) -> NDArray[np.uint8]:
    ends = np.cumsum(widths, dtype=np.int64)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for i in range(int(widths.max())):
        wide = np.flatnonzero(widths > i)
        bits[ends[wide] - 1 - i] = (values[wide] >> i) & 1
    return bits


def read(blob: bytes, widths: Ints, where: str) -> Ints:
    """Return the fields, int64, that `write` was given with the same widths."""
    ends = np.cumsum(widths, dtype=np.int64)
    bits = flags(blob, int(ends[-1]) if ends.size else 0, where)
    values = np.zeros(widths.size, np.int64)
    for i in range(int(widths.max(initial=0))):
        wide = np.flatnonzero(widths > i)
        values[wide] |= bits[ends[wide] - 1 - i].astype(np.int64) << i
    return values


def flags(blob: bytes, count: int, where: str) -> NDArray[np.uint8]:
    """Return the first `count` bits as zeros and ones; `FileError` where `blob` is too short."""
    if 8 * len(blob) < count:
        raise FileError(f"{where}: needs {count} bits, {8 * len(blob)} are there")
    return np.unpackbits(np.frombuffer(blob, np.uint8), count=count)
