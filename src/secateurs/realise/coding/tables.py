"""The table that goes with a tensor of few values: its codebook, or its steps."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import FileError
from secateurs.realise.coding.bits import Reader, varint
from secateurs.realise.coding.plain import DTYPES, dtype_name, from_rows, to_rows
from secateurs.realise.coding.shared import disorder
from secateurs.realise.coding.values import FLOATS, smallest_by

Array = NDArray[Any]
FLOATING = ("float32", "float16", "bfloat16", "float64")
"""Types of a table, in the order of their numbers in the file."""
MOST = 1 << 20
"""Values that a table may hold."""


def encode_steps(step: Tensor) -> bytes:
    """Return a step, or one a row, as bytes."""
    return _table(step.dtype, to_rows(step), scalar=step.dim() == 0)


def decode_steps(blob: bytes, where: str) -> Tensor:
    """Return the step or steps that `encode_steps` was given."""
    dtype, scalar, rows = _read_table(blob, where)
    steps = from_rows(rows, dtype)
    return steps[0] if scalar else steps


def encode_book(keys: Tensor, dtype: torch.dtype) -> bytes:
    """Return a codebook of `dtype`, given as `Shared.ranking` does, as bytes."""
    return _table(dtype, _gaps(keys, dtype.itemsize))


def decode_book(blob: bytes, where: str) -> tuple[Tensor, int]:
    """Return the codebook, sorted, and how many of its entries have a minus sign."""
    dtype, _, rows = _read_table(blob, where)
    keys = _ungaps(rows)
    return disorder(keys, dtype), int((keys < 0).sum())


def _table(dtype: torch.dtype, rows: Array, *, scalar: bool = False) -> bytes:
    """Type and number of values, the codec, the bytes. A scalar counts as 0."""
    codec, blob = smallest_by(FLOATS, FLOATS, "raw", rows)
    head = bytes([FLOATING.index(dtype_name(dtype)) << 4 | list(FLOATS).index(codec)])
    return head + varint(0 if scalar else len(rows) + 1) + blob


def _read_table(blob: bytes, where: str) -> tuple[torch.dtype, bool, Array]:
    reader = Reader(blob, where)
    kind, codec = divmod(reader.take(1, "the type of the values")[0], 16)
    if kind >= len(FLOATING) or codec >= len(FLOATS):
        raise FileError(f"{where}: values of type {kind} in codec {codec}")
    dtype = DTYPES[FLOATING[kind]]
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
