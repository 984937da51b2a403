"""Canonical Huffman codes: as few bits a number as any fixed code can have.

Source: Huffman 1952, as used by Han, Mao & Dally 2016, arXiv:1510.00149, section 4.
Deviation: the code's table is stored, and counted; the paper leaves it out.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import FileError
from secateurs.realise.coding.bits import Reader, pack, unpack, varint, write
from secateurs.realise.coding.native import call, native

Ints = NDArray[Any]
LONGEST = 24
SPAN = 1 << 16
"""Largest minus smallest number that a table may cover."""


def lengths(counts: Ints) -> Ints:
    """Return bits per symbol, (symbols,), 0 for those never seen and for one that stands alone.

    >>> lengths(np.array([8, 4, 2, 2, 0])).tolist()
    [1, 2, 3, 3, 0]
    """
    counts = np.asarray(counts, np.int64)
    while True:
        out = _unlimited(counts)
        if out.max(initial=0) <= LONGEST:
            return out
        counts = np.where(counts > 0, (counts + 1) // 2, 0)


def _unlimited(counts: Ints) -> Ints:
    seen = np.flatnonzero(counts)
    heap = [(int(counts[s]), i) for i, s in enumerate(seen)]
    heapq.heapify(heap)
    parent = [0] * (2 * len(heap))
    made = len(heap)
    while len(heap) > 1:
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        parent[i] = parent[j] = made
        heapq.heappush(heap, (a + b, made))
        made += 1
    depth = [0] * made
    for i in range(made - 2, -1, -1):
        depth[i] = depth[parent[i]] + 1
    out = np.zeros(counts.size, np.int64)
    out[seen] = depth[: seen.size]
    return out


def codes(bits: Ints) -> Ints:
    """Return the canonical codes, (symbols,): counting up within a length, short ones first."""
    out = np.zeros(bits.size, np.int64)
    code = 0
    for length in range(1, int(bits.max(initial=0)) + 1):
        these = np.flatnonzero(bits == length)
        out[these] = code + np.arange(these.size)
        code = (code + these.size) << 1
    return out


def encode(values: Ints) -> bytes | None:
    """Return whole numbers, (n,), as table and codes; None where they spread too wide."""
    if values.size == 0:
        return b""
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest >= SPAN or abs(lowest) > 1 << 30:
        return None
    # A large layer has many symbols: they and their codes take no more bytes than needed.
    symbols = (values.astype(np.int32) - lowest).astype(np.int32)
    bits = lengths(np.bincount(symbols))
    short, code = bits.astype(np.uint8), codes(bits).astype(np.int32)
    return _table(lowest, bits) + write(code[symbols], short[symbols])


def decode(blob: bytes, count: int, where: str) -> Ints:
    """Return the `count` numbers, int32, that `encode` was given; `where` names them in errors."""
    if count == 0:
        return np.zeros(0, np.int32)
    reader = Reader(blob, where)
    lowest, bits = _read_table(reader)
    if bits.size == 1:
        return np.full(count, lowest, np.int32)
    order = np.lexsort((np.arange(bits.size), bits))
    symbols = (order[bits[order] > 0] + lowest).astype(np.int32)
    per_length = np.bincount(bits, minlength=LONGEST + 1)
    per_length[0] = 0
    payload = reader.rest()
    if count > 8 * len(payload):
        raise FileError(f"{where}: {count} codes cannot fit {len(payload)} bytes")
    out = np.zeros(count, np.int32)
    if (lib := native()) is not None:
        data = np.frombuffer(payload, np.uint8)
        used = call(lib.prefix_decode, out, count, per_length, symbols, data, data.size)
    else:
        used = _decode(out, per_length.tolist(), symbols.tolist(), payload)
    if not 0 <= used <= 8 * len(payload):
        raise FileError(f"{where}: the codes are damaged")
    return out


def table_size(blob: bytes) -> int:
    """Return how many bytes of an encoded stream are its table."""
    reader = Reader(blob, "a table")
    if blob:
        _read_table(reader)
    return reader.at


def _table(lowest: int, bits: Ints) -> bytes:
    """Lowest number (zigzag), how many follow, then 5 bits of length each."""
    zigzag = 2 * lowest if lowest >= 0 else -2 * lowest - 1
    head = varint(zigzag) + varint(bits.size - 1)
    return head + (pack(bits, 5) if bits.size > 1 else b"")


def _read_table(reader: Reader) -> tuple[int, Ints]:
    zigzag = reader.varint("the lowest number", 1 << 31)
    size = reader.varint("the size of a table", SPAN - 1) + 1
    lowest = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1
    if size == 1:
        return lowest, np.zeros(1, np.int64)
    where = f"{reader.where}: a table"
    bits = unpack(reader.take((5 * size + 7) // 8, "a table"), 5, size, where)
    used = bits[bits > 0]
    if bits.max() > LONGEST or (1 << LONGEST >> used).sum() != 1 << LONGEST:
        raise FileError(f"{where} is no Huffman code")
    return lowest, bits


def _decode(out: Ints, per_length: list[int], symbols: list[int], payload: bytes) -> int:
    """Fill `out`; return the bits used. A loop over codes: only without the compiled coder."""
    window, have, used, at = 0, 0, 0, 0
    for i in range(out.size):
        code, first, place = 0, 0, 0
        for length in range(1, LONGEST + 1):
            if have == 0:
                window, have = int.from_bytes(payload[at : at + 4].ljust(4, b"\0"), "big"), 32
                at += 4
            have -= 1
            code = code << 1 | (window >> have) & 1
            first <<= 1
            if code - first < per_length[length]:
                out[i] = symbols[place + code - first]
                used += length
                break
            place += per_length[length]
            first += per_length[length]
    return used
