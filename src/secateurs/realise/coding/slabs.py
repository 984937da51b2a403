"""Long streams in slabs, coded apart, so that they decode on every core."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

from secateurs.realise.coding.bits import join, split

T = TypeVar("T")


def cuts(length: int, most: int) -> list[slice]:
    """Return even slices of at most `most` that cover 0 to `length`; one slice if it is short.

    >>> cuts(5, 2)
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    count = max(1, -(-length // most))
    edges = [length * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def encode(length: int, most: int, one: Callable[[slice], bytes]) -> bytes:
    """Return the slabs of a stream, each coded by `one`, joined."""
    return join(_each(one, cuts(length, most)))


def decode(
    blob: bytes, length: int, most: int, one: Callable[[bytes, slice], T], where: str
) -> list[T]:
    """Return what `one` makes of each slab."""
    slices = cuts(length, most)
    parts = dict(zip(map(str, slices), split(blob, len(slices), where), strict=True))
    return _each(lambda s: one(parts[str(s)], s), slices)


def _each(one: Callable[[slice], T], slices: list[slice]) -> list[T]:
    if len(slices) == 1:
        return [one(slices[0])]
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        return list(pool.map(one, slices))
