"""The compiled coder, where the installation found a C compiler; else None."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.realise.compiled import CODER, library

Array = NDArray[Any]

_SIGNATURES = {  # o: an array, i: a whole number
    "mask_encode": "oiiioi",
    "mask_decode": "oiiioi",
    "values_encode": "ooiioi",
    "values_decode": "ooiioi",
    "bytes_encode": "oiioioi",
    "bytes_decode": "oiioioi",
    "prefix_decode": "oioooi",
}
_TOO_LONG, _NO_MEMORY = -1, -2


@cache
def native() -> Any:
    """Return the loaded library, or None: everything then runs in Python, byte for byte alike."""
    try:
        lib = ctypes.CDLL(str(library(CODER)))
    except OSError:
        return None
    for name, signature in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = ctypes.c_int64
        kinds = {"o": ctypes.c_void_p, "i": ctypes.c_int64}
        function.argtypes = [kinds[letter] for letter in signature]
    lib.prepare()
    return lib


def call(function: Callable[..., int], *arguments: Array | int) -> int:
    """Call a function of the library; arrays go by address. Returns what it returned."""
    plain = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in arguments]
    done = function(*plain)
    if done == _NO_MEMORY:
        raise MemoryError("the coder could not have the memory it needs")
    return done


def encoded(function: Callable[..., int], *arguments: Array | int, room: int) -> bytes:
    """Return what an encoder wrote; `room` bytes are tried first, then many times as many."""
    for size in (room + 64, 128 * room + 64):
        out = np.empty(size, np.uint8)
        done = call(function, *arguments, out, size)
        if done != _TOO_LONG:
            return out[:done].tobytes()
    raise AssertionError("no input is that hard to predict")
