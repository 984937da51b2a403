"""One tensor as streams: a table, indices and values, each by the codec that makes it smallest."""

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import FileError
from secateurs.realise.coding.bits import Reader, varint
from secateurs.realise.coding.indices import INDICES, matrix
from secateurs.realise.coding.shared import LARGEST, Coded, Shared, Uniform, disorder, order
from secateurs.realise.coding.values import FLOATS, VALUES

Array = NDArray[Any]
Kind = Literal["plain", "shared", "uniform"]
KINDS: tuple[Kind, ...] = ("plain", "shared", "uniform")

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
"""In the order of their numbers in the file: new ones go at the end."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_FLOATING = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Streams:
    """A tensor, packed. `indices` and `values` are named after the codecs that read them."""

    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    index: str
    indices: bytes
    value: str
    values: bytes
    table: bytes = b""

    @property
    def dense_bytes(self) -> int:
        """What the plain tensor takes in memory."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def __len__(self) -> int:
        """What the streams take in the file."""
        return len(self.indices) + len(self.values) + len(self.table)


def pack(coded: Coded, indices: Collection[str], values: Collection[str]) -> Streams:
    """Return the smallest streams that the allowed codecs make of a tensor.

    Plain tensors use every float codec, whatever `values` allows.
    """
    kind: Kind
    if isinstance(coded, Shared):
        coded = coded.canonical()
        keys = order(coded.codebook)
        table = _table(coded.codebook.dtype, _gaps(keys, coded.codebook.element_size()))
        flat = _numpy(coded.index.reshape(-1))
        negatives = int((keys < 0).sum())
        symbols = np.where(flat < 0, 0, flat - negatives + (flat >= negatives)).astype(np.int32)
        shape, kind = tuple(coded.index.shape), "shared"
    elif isinstance(coded, Uniform):
        table = _table(coded.step.dtype, _rows(coded.step), scalar=coded.step.dim() == 0)
        symbols = _numpy(coded.level.reshape(-1).int())
        shape, kind = tuple(coded.level.shape), "uniform"
    else:
        return _pack_plain(coded, indices)
    column = matrix(shape)[1]

    def smallest(places: Array) -> tuple[str, bytes]:
        here = np.asarray(places % max(1, column), np.int32)
        tried = {name: VALUES[name].encode(symbols[places], here) for name in values}
        return _smallest(tried, "packed", lambda: VALUES["packed"].encode(symbols[places], here))

    index, index_blob, value, value_blob = _choose((symbols != 0).reshape(shape), indices, smallest)
    return Streams(
        kind,
        _name(coded.dtype),
        shape,
        index,
        index_blob,
        value,
        value_blob,
        table,
    )


def unpack(streams: Streams, where: str) -> Coded:
    """Return the tensor; `FileError`, naming `where`, for streams that hold none."""
    shape, dtype = streams.shape, DTYPES[streams.dtype]
    if streams.kind == "plain":
        return _unpack_plain(streams, where)
    places = INDICES[streams.index].decode(streams.indices, shape, f"{where}, indices")
    column = np.asarray(places % max(1, matrix(shape)[1]), np.int32)
    symbols = VALUES[streams.value].decode(streams.values, column, f"{where}, values")
    low, high = int(symbols.min(initial=0)), int(symbols.max(initial=0))
    if max(-low, high) > LARGEST:
        raise FileError(f"{where}, values: {low} to {high}, beyond {LARGEST}")
    if streams.kind == "uniform":
        step_dtype, scalar, rows = _read_table(streams.table, f"{where}, table")
        level = _spread(symbols, places, shape, 0)
        step = _values(rows, step_dtype)
        if len(step) != (1 if scalar else shape[0] if shape else -1):
            raise FileError(f"{where}, table: {len(step)} steps for a tensor of shape {shape}")
        return Uniform(step[0] if scalar else step, level, dtype)
    book_dtype, _, rows = _read_table(streams.table, f"{where}, table")
    keys = _ungaps(rows)
    negatives, entries = int((keys < 0).sum()), keys.numel()
    if low < -negatives or high > entries - negatives:
        raise FileError(
            f"{where}, values: entries {low} to {high} of a codebook that has "
            f"{negatives} below and {entries - negatives} above zero"
        )
    entry = np.where(symbols == 0, -1, symbols + negatives - (symbols > 0)).astype(np.int32)
    return Shared(disorder(keys, book_dtype), _spread(entry, places, shape, -1), dtype)


def _pack_plain(tensor: Tensor, indices: Collection[str]) -> Streams:
    name, shape = _name(tensor.dtype), tuple(tensor.shape)
    rows = _rows(tensor)
    mask = np.asarray(rows.any(axis=1)).reshape(shape)

    def smallest(places: Array) -> tuple[str, bytes]:
        some = rows if len(places) == len(rows) else rows[places]
        tried = {codec: FLOATS[codec].encode(some) for codec in FLOATS}
        return _smallest(tried, "raw", lambda: some.tobytes())

    allowed = indices if not mask.all() else ("all",)
    return Streams("plain", name, shape, *_choose(mask, allowed, smallest))


def _unpack_plain(streams: Streams, where: str) -> Tensor:
    dtype = DTYPES[streams.dtype]
    decode = FLOATS[streams.value].decode
    count = prod(streams.shape)
    if streams.index == "all":
        rows = decode(streams.values, count, dtype.itemsize, f"{where}, values")
    else:
        places = INDICES[streams.index].decode(streams.indices, streams.shape, f"{where}, indices")
        some = decode(streams.values, len(places), dtype.itemsize, f"{where}, values")
        rows = np.zeros((count, dtype.itemsize), np.uint8)
        rows[places] = some
    if dtype == torch.bool and rows.max(initial=0) > 1:
        raise FileError(f"{where}, values: a bool is {rows.max()}")
    return _values(rows, dtype).reshape(streams.shape)


def _choose(mask: Array, indices: Collection[str], smallest: Any) -> tuple[str, bytes, str, bytes]:
    """Try every index codec, the smallest streams first; fillers make the other stream longer."""
    kept = np.flatnonzero(mask)
    tried = {name: INDICES[name].encode(mask) for name in indices}
    found = sorted(((len(blob), name, blob) for name, blob in tried.items() if blob is not None))
    if not found:
        found = [(0, "bitmask", INDICES["bitmask"].encode(mask) or b"")]
    best: tuple[str, bytes, str, bytes] | None = None
    exact: tuple[str, bytes] | None = None
    for size, name, blob in found:
        places = kept
        if INDICES[name].fills:
            places = INDICES[name].decode(blob, mask.shape, name)
        if len(places) > 2 * len(kept) + 4096 and len(found) > 1:
            continue  # mostly fillers
        if len(places) == len(kept):
            exact = value = exact or smallest(kept)
        else:
            value = smallest(places)
        if best is None or size + len(value[1]) < len(best[1]) + len(best[3]):
            best = (name, blob, *value)
    assert best is not None
    return best


def _smallest(tried: dict[str, bytes | None], fallback: str, encode: Any) -> tuple[str, bytes]:
    made = {name: blob for name, blob in tried.items() if blob is not None}
    if not made:
        return fallback, encode()
    name = min(made, key=lambda name: len(made[name]))
    return name, made[name]


def _table(dtype: torch.dtype, rows: Array, *, scalar: bool = False) -> bytes:
    """Type and number of values, the codec, the bytes. A scalar counts as 0."""
    tried = {name: FLOATS[name].encode(rows) for name in FLOATS}
    codec, blob = _smallest(tried, "raw", lambda: rows.tobytes())
    head = bytes([_FLOATING.index(_name(dtype)) << 4 | list(FLOATS).index(codec)])
    return head + varint(0 if scalar else len(rows) + 1) + blob


def _read_table(blob: bytes, where: str) -> tuple[torch.dtype, bool, Array]:
    reader = Reader(blob, where)
    kind, codec = divmod(reader.take(1, "the type of the values")[0], 16)
    if kind >= len(_FLOATING) or codec >= len(FLOATS):
        raise FileError(f"{where}: values of type {kind} in codec {codec}")
    dtype = DTYPES[_FLOATING[kind]]
    count = reader.varint("the number of values", 1 << 20)
    rest, decode = reader.rest(), list(FLOATS.values())[codec].decode
    return dtype, count == 0, decode(rest, max(1, count) - (count > 0), dtype.itemsize, where)


def _gaps(keys: Tensor, width: int) -> Array:
    """Sorted keys as rows of `width` bytes: the first from the lowest there is, then the steps."""
    lowest = -(1 << (8 * width - 1))
    steps, before = [], lowest
    for key in keys.tolist():
        steps.append((key - before).to_bytes(width, "big"))
        before = key
    return np.frombuffer(b"".join(steps), np.uint8).reshape(-1, width)


def _ungaps(rows: Array) -> Tensor:
    width = rows.shape[1]
    key, keys = -(1 << (8 * width - 1)), []
    for row in rows:
        key += int.from_bytes(row.tobytes(), "big")
        keys.append(key)
    wrapped = [(k + (1 << 8 * width - 1)) % (1 << 8 * width) - (1 << 8 * width - 1) for k in keys]
    return torch.tensor(wrapped, dtype=torch.int64)


def _rows(tensor: Tensor) -> Array:
    """Values as rows of bytes, highest first: uint8 (n, bytes of one)."""
    flat = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
    rows = flat.reshape(-1, tensor.element_size())
    return np.ascontiguousarray(rows[:, ::-1]) if sys.byteorder == "little" else rows


def _values(rows: Array, dtype: torch.dtype) -> Tensor:
    if rows.size == 0:
        return torch.empty(0, dtype=dtype)
    ordered = rows[:, ::-1] if sys.byteorder == "little" else rows
    return torch.from_numpy(np.array(ordered, order="C").reshape(-1)).view(dtype)


def _spread(some: Array, places: Array, shape: Iterable[int], empty: int) -> Tensor:
    flat = np.full(prod(shape), empty, np.int32)
    flat[places] = some
    return torch.from_numpy(flat).reshape(tuple(shape))


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def _name(dtype: torch.dtype) -> str:
    if dtype not in _NAMES:
        raise FileError(f"cannot store values of {dtype}; known are {', '.join(DTYPES)}")
    return _NAMES[dtype]
