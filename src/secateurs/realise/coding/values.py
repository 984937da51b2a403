"""The weights that stay, as bytes: the tables of value codecs.

`VALUES` code whole numbers (which entry of a codebook, or which level), `FLOATS` code the
bytes of plain values. Both are told the flat places of the values, and how many.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import FileError
from secateurs.realise.coding import context, huffman, slabs
from secateurs.realise.coding.bits import Reader, join, pack, split, unpack, varint
from secateurs.realise.coding.shared import LARGEST

Ints = NDArray[Any]
SLAB = 1 << 20
"""Values that the context coder codes in one go."""
SMALL = 1 << 20
"""Bytes of plain values beyond which the context coder, at a million a second, is too slow."""


class Value(NamedTuple):
    """Two functions: whole numbers (n,) in their columns (n,) to bytes, and back.

    `encode` returns None where it does not apply; `decode(blob, column, where)` raises
    `FileError`, naming `where`, for bytes that are no such numbers.
    """

    encode: Callable[[Ints, Ints], bytes | None]
    decode: Callable[[bytes, Ints, str], Ints]


def _encode_packed(values: Ints, column: Ints) -> bytes:
    lowest = int(values.min(initial=0))
    offset = values.astype(np.int64) - lowest
    width = int(offset.max(initial=0)).bit_length()
    return varint(-lowest) + bytes([width]) + pack(offset, width)


def _decode_packed(blob: bytes, column: Ints, where: str) -> Ints:
    reader = Reader(blob, where)
    lowest = -reader.varint("the lowest number", LARGEST)
    width = reader.take(1, "the width of a number")[0]
    if width > 31:
        raise FileError(f"{where}: numbers of {width} bits, more than 31")
    values = unpack(reader.rest(), width, column.size, where) + lowest
    if values.max(initial=0) > LARGEST:
        raise FileError(f"{where}: a number is {values.max()}, more than {LARGEST}")
    return values.astype(np.int32)


def _encode_huffman(values: Ints, column: Ints) -> bytes | None:
    return huffman.encode(values)


def _decode_huffman(blob: bytes, column: Ints, where: str) -> Ints:
    return huffman.decode(blob, column.size, where)


def _encode_context(values: Ints, column: Ints) -> bytes:
    return slabs.encode(values.size, SLAB, lambda s: context.encode_values(values[s], column[s]))


def _decode_context(blob: bytes, column: Ints, where: str) -> Ints:
    def one(part: bytes, s: slice) -> Ints:
        return context.decode_values(part, column[s])

    return np.concatenate(slabs.decode(blob, column.size, SLAB, one, where))


VALUES: dict[str, Value] = {
    "packed": Value(_encode_packed, _decode_packed),
    "huffman": Value(_encode_huffman, _decode_huffman),
    "context": Value(_encode_context, _decode_context),
}
"""In the order of their numbers in the file: new ones go at the end."""


class Float(NamedTuple):
    """Two functions: values as rows of bytes, highest first, uint8 (n, width), to bytes, and back.

    `encode` returns None where it does not apply; `decode(blob, n, width, where)` raises
    `FileError`, naming `where`.
    """

    encode: Callable[[Ints], bytes | None]
    decode: Callable[[bytes, int, int, str], Ints]


def _encode_raw(rows: Ints) -> bytes:
    return rows.tobytes()


def _decode_raw(blob: bytes, count: int, width: int, where: str) -> Ints:
    flat = np.frombuffer(Reader(blob, where).take(count * width, "the values"), np.uint8)
    return flat.reshape(count, width)


def _encode_planes(rows: Ints) -> bytes:
    """Code all first bytes, all second bytes, ...: each plane by Huffman, or as it is."""
    planes = []
    for plane in rows.T:
        coded = huffman.encode(plane)
        smaller = coded is not None and len(coded) < plane.size
        planes.append(b"\1" + coded if smaller and coded else b"\0" + plane.tobytes())
    return join(planes)


def _decode_planes(blob: bytes, count: int, width: int, where: str) -> Ints:
    rows = np.empty((count, width), np.uint8)
    for i, plane in enumerate(split(blob, width, where)):
        reader = Reader(plane, where)
        if reader.take(1, "a plane's kind")[0]:
            rows[:, i] = huffman.decode(reader.rest(), count, where).astype(np.uint8)
        else:
            rows[:, i] = np.frombuffer(reader.take(count, "a plane"), np.uint8)
    return rows


def _encode_float_context(rows: Ints) -> bytes | None:
    if rows.size > SMALL:
        return None
    return context.encode_bytes(rows.tobytes(), width=min(rows.shape[1], 8))


def _decode_float_context(blob: bytes, count: int, width: int, where: str) -> Ints:
    if count * width > SMALL:
        raise FileError(f"{where}: {count * width} bytes of plain values, more than {SMALL}")
    flat = context.decode_bytes(blob, count * width, width=min(width, 8))
    return np.frombuffer(flat, np.uint8).reshape(count, width)


FLOATS: dict[str, Float] = {
    "raw": Float(_encode_raw, _decode_raw),
    "planes": Float(_encode_planes, _decode_planes),
    "context": Float(_encode_float_context, _decode_float_context),
}
"""In the order of their numbers in the file: new ones go at the end."""


def smallest_by(
    codecs: Mapping[str, Value] | Mapping[str, Float],
    names: Iterable[str],
    fallback: str,
    *arguments: Ints,
) -> tuple[str, bytes]:
    """Return which of the named codecs makes its arguments smallest, and the bytes.

    `fallback`, which always applies, where none of `names` does.
    """
    made: dict[str, bytes | None] = {name: codecs[name].encode(*arguments) for name in names}
    found = {name: blob for name, blob in made.items() if blob is not None}
    if not found:
        return fallback, codecs[fallback].encode(*arguments) or b""
    name = min(found, key=lambda name: len(found[name]))
    return name, found[name]
