"""The compiled kernels, and the steps they are given: kernels.c and layers.h, field by field."""

import ctypes
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import UnknownNameError
from secateurs.realise.compiled import KERNELS, library
from secateurs.realise.sparse.layout import Layout

PRODUCT, FOLD, POOL, MEAN, SUM, ROWS = range(6)
TOGETHER = (1, 2, 4)
"""How many filters may share their offsets."""
BITS = (32, 8)
"""What a weight may be stored in."""
INSTRUCTIONS = ("avx512", "avx2", "plain")
"""What the kernels may be written in, best first; `plain` is NEON on ARM."""


class Planes(ctypes.Structure):
    """An activation at a place in the arena."""

    _fields_ = tuple(
        (name, c_int64)
        for name in ("at", "image", "plane", "pitch", "rows", "columns", "channels", "head")
    )


class Entries(ctypes.Structure):
    """A layer's arrays, by address."""

    _fields_ = (
        *((name, c_int64) for name in ("blocks", "groups")),
        *((name, c_void_p) for name in ("starts", "offsets", "values", "filters", "bias")),
        *((name, c_int64) for name in ("columns", "pitch")),
        *((name, c_float) for name in ("low", "high")),
        *((name, c_void_p) for name in ("channels", "steps", "scale")),
        ("plane", c_int64),
    )


class Step(ctypes.Structure):
    """One thing to do."""

    _fields_ = (
        *((name, c_int64) for name in ("kind", "instructions", "items")),
        *((name, Planes) for name in ("source", "made", "other")),
        ("layer", Entries),
        *((name, c_int64) for name in ("positions", "vectors", "together", "chunk", "residual")),
        *((name, c_int64 * 2) for name in ("window", "stride", "pad")),
        ("outside", c_int64),
        ("strides", c_int64 * 4),
        *((name, c_float) for name in ("low", "high")),
    )


@cache
def native() -> Any:
    """Return the loaded library, or None where it could not be compiled."""
    try:
        lib = ctypes.CDLL(str(library(KERNELS)))
    except OSError:
        return None
    lib.lanes.argtypes, lib.lanes.restype = [c_int64], c_int64
    lib.widest.argtypes, lib.widest.restype = [c_int64, c_int64], c_int64
    lib.step_size.argtypes, lib.step_size.restype = [], c_int64
    lib.run.argtypes = [c_void_p, c_int64, c_void_p, c_void_p, c_int64]
    lib.run.restype = c_int64
    assert lib.step_size() == ctypes.sizeof(Step)
    return lib


def available() -> list[str]:
    """List the instructions that this processor has kernels for, best first."""
    lib = native()
    return [] if lib is None else [n for i, n in enumerate(INSTRUCTIONS) if lib.lanes(i)]


def lanes(instructions: str) -> int:
    """Return how many floats one vector holds.

    Raises:
        UnknownNameError: this processor has no such instructions, or nothing was compiled.
    """
    if instructions not in available():
        raise UnknownNameError(
            f"{instructions!r} kernels are not to be had here; there are "
            f"{', '.join(available()) or 'none, since no C compiler was found'}"
        )
    return int(native().lanes(INSTRUCTIONS.index(instructions)))


def widest(instructions: str, together: int) -> int:
    """Return how many vectors of positions fit the registers."""
    return int(native().widest(INSTRUCTIONS.index(instructions), together))


def planes(layout: Layout, at: int) -> Planes:
    """Return an activation's planes; `at` is where its memory begins in the arena."""
    return Planes(
        at + layout.head, layout.image, layout.plane, layout.pitch,
        layout.rows, layout.columns, layout.channels, layout.head,
    )  # fmt: skip


def address(array: NDArray[Any] | None) -> int | None:
    """Return where an array's numbers are, if there is one; the caller keeps it alive."""
    return None if array is None else int(array.ctypes.data)


def run(steps: Any, arena: NDArray[np.float32], outside: list[int], threads: int) -> None:
    """Do all steps, an array of `Step`; `outside` holds the addresses of tensors they name."""
    pointers = (c_void_p * max(1, len(outside)))(*outside)
    failed = native().run(
        ctypes.byref(steps), len(steps), arena.ctypes.data, ctypes.byref(pointers), threads
    )
    if failed:
        raise MemoryError("the sparse run time could not have the memory it needs")
