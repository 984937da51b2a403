"""Tensors as rows of bytes, and back: the types a file may hold."""

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import FileError

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


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type in DTYPES; `FileError` for any other."""
    if dtype not in _NAMES:
        raise FileError(f"cannot store values of {dtype}; known are {', '.join(DTYPES)}")
    return _NAMES[dtype]


def to_rows(tensor: Tensor) -> NDArray[Any]:
    """Values as rows of bytes, highest first: uint8 (n, bytes of one)."""
    flat = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
    rows = flat.reshape(-1, tensor.element_size())
    return np.ascontiguousarray(rows[:, ::-1]) if sys.byteorder == "little" else rows


def from_rows(rows: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """Return the flat tensor that `to_rows` was given."""
    if rows.size == 0:
        return torch.empty(0, dtype=dtype)
    ordered = rows[:, ::-1] if sys.byteorder == "little" else rows
    return torch.from_numpy(np.array(ordered, order="C").reshape(-1)).view(dtype)
