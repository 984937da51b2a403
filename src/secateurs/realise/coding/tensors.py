"""One tensor as streams: a table, indices and values, each by the codec that makes it smallest."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf, prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import FileError
from secateurs.realise.coding import pace
from secateurs.realise.coding.indices import INDICES, matrix
from secateurs.realise.coding.plain import DTYPES, dtype_name, from_rows, to_rows
from secateurs.realise.coding.shared import LARGEST, Coded, Shared, Uniform
from secateurs.realise.coding.tables import decode_book, decode_steps, encode_book, encode_steps
from secateurs.realise.coding.values import FLOATS, VALUES, smallest_by

Array = NDArray[Any]
Kind = Literal["plain", "shared", "uniform"]
KINDS: tuple[Kind, ...] = ("plain", "shared", "uniform")


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


def pack(
    coded: Coded, indices: Collection[str], values: Collection[str], *, seconds: float = inf
) -> Streams:
    """Return the smallest streams that the allowed codecs make of a tensor.

    Codecs that would take longer to read than so many seconds, see `pace`, are not allowed.
    Plain tensors use every float codec, whatever `values` allows.
    """
    kind: Kind
    if isinstance(coded, Shared):
        keys, place = coded.ranking()
        table = encode_book(keys, coded.codebook.dtype)
        symbol = _numpy(place) - int((keys < 0).sum())
        of = np.append(symbol + (symbol >= 0), 0).astype(np.int32)
        whole, mask, kind = coded.index, coded.mask, "shared"
    elif isinstance(coded, Uniform):
        table, of = encode_steps(coded.step), None
        whole, mask, kind = coded.level, coded.mask, "uniform"
    else:
        return _pack_plain(coded, indices, seconds)
    shape = tuple(whole.shape)
    flat, columns = _numpy(whole.reshape(-1)), max(1, matrix(shape)[1])

    def smallest(places: Array, left: float) -> tuple[str, bytes]:
        some = flat[places] if of is None else of[flat[places]]
        column = (places % columns).astype(np.int32)
        quick = [v for v in values if pace.of_numbers(v, some) <= left]
        return smallest_by(VALUES, quick, "packed", some, column)

    chosen = _choose(_numpy(mask), indices, smallest, seconds)
    return Streams(kind, dtype_name(coded.dtype), shape, *chosen, table)


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
        step = decode_steps(streams.table, f"{where}, table")
        if tuple(step.shape) not in ((), shape[:1]):
            raise FileError(f"{where}, table: {len(step)} steps for a tensor of shape {shape}")
        return Uniform(step, _spread(symbols, places, shape, 0), dtype)
    book, negatives = decode_book(streams.table, f"{where}, table")
    if low < -negatives or high > len(book) - negatives:
        raise FileError(
            f"{where}, values: entries {low} to {high} of a codebook that has "
            f"{negatives} below and {len(book) - negatives} above zero"
        )
    entry = np.where(symbols == 0, -1, symbols + negatives - (symbols > 0)).astype(np.int32)
    return Shared(book, _spread(entry, places, shape, -1), dtype)


def _pack_plain(tensor: Tensor, indices: Collection[str], seconds: float) -> Streams:
    name, shape = dtype_name(tensor.dtype), tuple(tensor.shape)
    rows = to_rows(tensor)
    mask = np.asarray(rows.any(axis=1)).reshape(shape)

    def smallest(places: Array, left: float) -> tuple[str, bytes]:
        some = rows if len(places) == len(rows) else rows[places]
        quick = [f for f in FLOATS if pace.of_bytes(f, some) <= left]
        return smallest_by(FLOATS, quick, "raw", some)

    allowed = indices if not mask.all() else ("all",)
    return Streams("plain", name, shape, *_choose(mask, allowed, smallest, seconds))


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
    return from_rows(rows, dtype).reshape(streams.shape)


def _choose(
    mask: Array, indices: Collection[str], smallest: Any, seconds: float
) -> tuple[str, bytes, str, bytes]:
    """Try every index codec, the smallest streams first; fillers make the other stream longer.

    Both streams together take at most so many seconds to read.
    """
    kept = np.flatnonzero(mask)
    left = {name: seconds - pace.of_mask(name, mask.size) for name in indices}
    tried = {name: INDICES[name].encode(mask) for name in indices if left[name] >= 0}
    found = sorted(((len(blob), name, blob) for name, blob in tried.items() if blob is not None))
    if not found:
        found = [(0, "bitmask", INDICES["bitmask"].encode(mask) or b"")]
    best: tuple[str, bytes, str, bytes] | None = None
    exact: dict[float, tuple[str, bytes]] = {}
    most = 2 * len(kept) + 4096 if len(found) > 1 else mask.size
    for size, name, blob in found:
        # All places of a large layer as numbers would take more than the layer.
        if name == "all" and mask.size > most:
            continue
        places = kept
        if INDICES[name].fills:
            places = INDICES[name].decode(blob, mask.shape, name)
        if len(places) > most:
            continue  # mostly fillers
        time = left.get(name, seconds)
        if len(places) == len(kept):
            value = exact[time] = exact.get(time) or smallest(kept, time)
        else:
            value = smallest(places, time)
        if best is None or size + len(value[1]) < len(best[1]) + len(best[3]):
            best = (name, blob, *value)
    assert best is not None
    return best


def _spread(some: Array, places: Array, shape: Iterable[int], empty: int) -> Tensor:
    flat = np.full(prod(shape), empty, np.int32)
    flat[places] = some
    return torch.from_numpy(flat).reshape(tuple(shape))


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array
