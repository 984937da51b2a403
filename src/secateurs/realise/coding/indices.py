"""Which weights stay, as bytes: the table of index codecs.

An index codec turns a mask into bytes, and bytes back into *places*: the flat positions of
the values that follow in the tensor's other stream, going up. Every kept weight has its
place; a place may also be a filler, whose value is zero.
"""

from collections.abc import Callable
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import FileError
from secateurs.realise.coding import context, huffman, slabs
from secateurs.realise.coding.bits import Reader, flags, pack, read, unpack, varint, write
from secateurs.realise.coding.gaps import from_gaps, gaps
from secateurs.realise.coding.units import from_units, to_units

Mask = NDArray[np.bool_]
Places = NDArray[Any]
Shape = tuple[int, ...]
SLAB = 1 << 22
"""Weights that the context coder codes in one go."""


class Index(NamedTuple):
    """Two functions: mask to bytes (None where it does not apply), and bytes to places.

    `decode(encode(mask), mask.shape, where)` holds every place where the mask is True. It raises
    `FileError`, naming `where`, for bytes that describe no mask of that shape. `fills` says
    that there may be fillers.
    """

    encode: Callable[[Mask], bytes | None]
    decode: Callable[[bytes, Shape, str], Places]
    fills: bool = False


def _encode_all(mask: Mask) -> bytes:
    return b""


def _decode_all(blob: bytes, shape: Shape, where: str) -> Places:
    return np.arange(prod(shape))


def _encode_bitmask(mask: Mask) -> bytes:
    return np.packbits(mask).tobytes()


def _decode_bitmask(blob: bytes, shape: Shape, where: str) -> Places:
    return np.flatnonzero(flags(blob, prod(shape), where))


def _gaps(bits: int, *, coded: bool) -> Index:
    def encode(mask: Mask) -> bytes | None:
        fields = gaps(mask.reshape(-1), bits)
        stream = huffman.encode(fields) if coded else pack(fields, bits)
        return None if stream is None else varint(fields.size) + stream

    def decode(blob: bytes, shape: Shape, where: str) -> Places:
        reader = Reader(blob, where)
        count = reader.varint("the number of gaps", prod(shape))
        stream = reader.rest()
        if coded:
            fields: Places = huffman.decode(stream, count, where)
        else:
            fields = unpack(stream, bits, count, where)
        return _inside(from_gaps(fields), fields, shape, where)

    return Index(encode, decode, fills=True)


def _encode_runs(mask: Mask) -> bytes | None:
    """Lengths of the runs of zeros and ones in turn: bits of each Huffman-coded, then the bits."""
    flat = mask.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(edges, prepend=0, append=flat.size)
    if flat.size and flat[0]:
        runs = np.append(0, runs)
    sizes = np.frexp(runs.astype(np.float64))[1]
    coded = huffman.encode(sizes) or b""
    low = np.maximum(sizes - 1, 0)
    return varint(runs.size) + varint(len(coded)) + coded + write(runs, low)


def _decode_runs(blob: bytes, shape: Shape, where: str) -> Places:
    reader = Reader(blob, where)
    count = reader.varint("the number of runs", prod(shape) + 1)
    coded = reader.take(reader.varint("the size of run lengths"), "run lengths")
    sizes = huffman.decode(coded, count, where).astype(np.int64)
    if sizes.min(initial=0) < 0 or sizes.max(initial=0) > 48:
        raise FileError(f"{where}: a run length has {sizes.max()} bits")
    low = np.maximum(sizes - 1, 0)
    runs = read(reader.rest(), low, where) + np.where(sizes > 0, 1 << low, 0)
    if int(runs.astype(np.float64).sum()) != prod(shape):
        raise FileError(f"{where}: the runs do not add up to {prod(shape)}")
    return np.flatnonzero(np.repeat(np.arange(count) % 2 == 1, runs))


def _encode_units(mask: Mask) -> bytes | None:
    found = to_units(mask) if mask.size and mask.ndim <= 8 else None
    if found is None:
        return None
    axes, units = found
    inner = units.reshape(units.shape[0], -1) if units.ndim else units.reshape(1, 1)
    bitmask, coded = _encode_bitmask(inner), _encode_context(inner)
    packed = len(bitmask) <= len(coded)
    head = bytes([sum(1 << axis for axis in axes), int(packed)])
    return head + (bitmask if packed else coded)


def _decode_units(blob: bytes, shape: Shape, where: str) -> Places:
    reader = Reader(blob, where)
    bitset, packed = reader.take(2, "the axes of units")
    axes = tuple(axis for axis in range(8) if bitset >> axis & 1)
    if packed > 1 or (axes and axes[-1] >= len(shape)):
        raise FileError(f"{where}: axes {axes} of a tensor of shape {shape}")
    sizes = tuple(shape[axis] for axis in axes)
    inner = (sizes[0], prod(sizes[1:])) if sizes else (1, 1)
    decode = _decode_bitmask if packed else _decode_context
    units = np.zeros(prod(sizes), np.bool_)
    units[decode(reader.rest(), inner, where)] = True
    return np.flatnonzero(from_units(axes, units, shape))


def matrix(shape: Shape) -> tuple[int, int]:
    """Return the (rows, columns) that a tensor is seen as: its first axis by all the others.

    A tensor of one axis is one row.
    """
    return (1, prod(shape)) if len(shape) < 2 else (shape[0], prod(shape[1:]))


def _encode_context(mask: Mask) -> bytes:
    rows, columns = matrix(mask.shape)
    if mask.size == 0:
        return b""
    flat = mask.reshape(rows, columns)
    tall = max(1, SLAB // columns)
    first = flat[slabs.cuts(rows, tall)[0]]
    _, period = min((len(context.encode_mask(first, p)), p) for p in _periods(first, mask.shape))
    coded = slabs.encode(rows, tall, lambda s: context.encode_mask(flat[s], period))
    return varint(period) + coded


def _decode_context(blob: bytes, shape: Shape, where: str) -> Places:
    rows, columns = matrix(shape)
    if rows * columns == 0:
        return np.zeros(0, np.int64)
    reader = Reader(blob, where)
    period = reader.varint("the period", columns)
    if period == 0:
        raise FileError(f"{where}: the period is 0")

    def one(part: bytes, rows: slice) -> Places:
        mask = context.decode_mask(part, rows.stop - rows.start, columns, period)
        places: Places = np.flatnonzero(mask) + rows.start * columns
        return places

    parts = slabs.decode(reader.rest(), rows, max(1, SLAB // columns), one, where)
    return np.concatenate(parts)


def _periods(mask: Mask, shape: Shape) -> set[int]:
    """Distances worth a try: none, a kernel, a square picture, and where the mask repeats."""
    columns = mask.shape[1]
    found = {1, prod(shape[2:]), isqrt(columns)}
    some = mask[:: max(1, mask.shape[0] // 64), :4096]
    lags = range(2, min(65, some.shape[1] // 2))
    alike = {lag: int((some[:, lag:] & some[:, :-lag]).sum()) for lag in lags}
    found.update(sorted(alike, key=lambda lag: -alike[lag])[:3])
    return {p for p in found if 1 <= p <= columns}


def _inside(places: Places, fields: Places, shape: Shape, where: str) -> Places:
    if fields.size and (int(fields.min()) < 0 or int(places[-1]) >= prod(shape)):
        raise FileError(f"{where}: the gaps lead past the {prod(shape)} weights there are")
    return places


INDICES: dict[str, Index] = {
    "all": Index(_encode_all, _decode_all, fills=True),
    "bitmask": Index(_encode_bitmask, _decode_bitmask),
    "gaps3": _gaps(3, coded=False),
    "gaps4": _gaps(4, coded=False),
    "gaps5": _gaps(5, coded=False),
    "gaps8": _gaps(8, coded=False),
    "gaps3+huffman": _gaps(3, coded=True),
    "gaps4+huffman": _gaps(4, coded=True),
    "gaps5+huffman": _gaps(5, coded=True),
    "gaps8+huffman": _gaps(8, coded=True),
    "runs": Index(_encode_runs, _decode_runs),
    "units": Index(_encode_units, _decode_units),
    "context": Index(_encode_context, _decode_context),
}
"""In the order of their numbers in the file: new ones go at the end."""
