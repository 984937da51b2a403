"""The context coder in Python: the same bytes as coder.c, a hundred times slower.

It runs where no compiler was found at install time, and it is what a reader of
docs/format.md may compare with line by line. Each model is written once for both directions:
`Coder.code` writes the bit it is given, or ignores it and returns the bit it read.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Cells = list[int]
"""Counters: probability of a one in the upper 22 bits, number of visits in the lower 10."""

FRESH = 1 << 31
REACH = 2559
HEAVY = 1 << 20
HASHED = 1 << 16
# 65536 / (1 + exp(-x)) for x = 0, 1/2, 1, ... 10; a step is 128 of our units.
LOGISTIC = (
    *(32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097),
    *(65269, 65374, 65438, 65476, 65500, 65514, 65523, 65528, 65531, 65533),
)


def _squash_table() -> list[int]:
    half = []
    for x in range(REACH + 1):
        i, f = x >> 7, x & 127
        half.append(LOGISTIC[i] + (((LOGISTIC[i + 1] - LOGISTIC[i]) * f) >> 7))
    return [65536 - p for p in half[:0:-1]] + half


SQUASH = _squash_table()
STRETCH: list[int] = (np.searchsorted(SQUASH[:-1], np.arange(4096) * 16 + 8) - REACH).tolist()
RATE = [131072 // (2 * n + 3) for n in range(1024)]
TRUST = [256 * n // (n + 3) for n in range(1024)]


class Mixer:
    """Weights of a mixture, 65536 is one; the more it has seen, the slower it learns."""

    def __init__(self) -> None:
        """Start with equal weights."""
        self.weight = [26214] * 5
        self.seen = 0

    def copy(self) -> "Mixer":
        """Return another that has learnt the same."""
        other = Mixer()
        other.weight, other.seen = list(self.weight), self.seen
        return other


class Coder:
    """A binary range coder: encodes when given no bytes, else decodes them."""

    def __init__(self, blob: bytes | None = None) -> None:
        """Start at the first bit."""
        self.encodes = blob is None
        self.out = bytearray()
        self.low, self.range, self.cache, self.pending = 0, 0xFFFFFFFF, -1, 0
        self.blob = blob or b""
        self.value = int.from_bytes(self.blob[:4].ljust(4, b"\0"), "big")
        self.at = 4

    def code(self, mixer: Mixer, tables: Sequence[Cells], keys: Sequence[int], bit: int) -> int:
        """Code one bit as the counters `tables[i][keys[i]]` expect it; they learn from it."""
        cells = [table[key] for table, key in zip(tables, keys, strict=True)]
        s = [(STRETCH[k >> 20] * TRUST[k & 1023]) >> 8 for k in cells]
        weight = mixer.weight
        x = sum(a * b for a, b in zip(weight, s, strict=False)) >> 16
        p = SQUASH[min(max(x, -REACH), REACH) + REACH]
        bit = self._code(p, bit)
        error = (bit << 16) - p
        rate = 2 + 1600 // (16 + mixer.seen)
        mixer.seen = min(mixer.seen + 1, 1023)
        for i, k in enumerate(cells):
            w = weight[i] + ((s[i] * error * rate + (1 << 17)) >> 18)
            weight[i] = min(max(w, -HEAVY), HEAVY)
            q, n = k >> 10, k & 1023
            q += (((4194303 if bit else 0) - q) * RATE[n]) >> 16
            tables[i][keys[i]] = q << 10 | min(n + 1, 1023)
        return bit

    def _code(self, p: int, bit: int) -> int:
        bound = (self.range * p) >> 16
        if not self.encodes:
            bit = int(self.value < bound)
        if bit:
            self.range = bound
        else:
            self.range -= bound
            if self.encodes:
                self.low += bound
            else:
                self.value -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            if self.encodes:
                self._shift()
            else:
                following = self.blob[self.at] if self.at < len(self.blob) else 0
                self.value = self.value << 8 | following
                self.at += 1
        return bit

    def _shift(self) -> None:
        if self.low < 0xFF000000 or self.low >> 32:
            carry = self.low >> 32
            if self.cache >= 0:  # the first byte would always be zero
                self.out.append(self.cache + carry)
            self.out.extend(bytes([(0xFF + carry) & 0xFF]) * self.pending)
            self.pending, self.cache = 0, (self.low >> 24) & 0xFF
        else:
            self.pending += 1
        self.low = (self.low & 0x00FFFFFF) << 8

    def finish(self) -> bytes:
        """Return the shortest bytes that decode to the bits coded so far."""
        end = self.low + self.range
        for zeros in range(32, -1, -1):
            v = ((self.low + (1 << zeros) - 1) >> zeros) << zeros
            if v < end:
                break
        self.low = v
        for _ in range(5):
            self._shift()
        return bytes(self.out).rstrip(b"\0")


def _lines(coder: Coder, live: list[int]) -> None:
    any_, after = [FRESH], [FRESH, FRESH]
    mixers = Mixer(), Mixer()
    some = coder.code(mixers[0], [any_], [0], int(not all(live)))
    for i in range(len(live)):
        key = live[i - 1] if i else 1
        live[i] = coder.code(mixers[1], [after], [key], live[i]) if some else 1


def _grade(cell: int) -> int:
    return (STRETCH[cell >> 20] + 2048 >> 8) & 15


def code_mask(coder: Coder, mask: NDArray[np.uint8], period: int) -> None:
    """Encode the zeros and ones of `mask`, (rows, columns), or decode into it."""
    rows, cols = mask.shape
    live_row = mask.any(axis=1).astype(int).tolist()
    live_column = mask.any(axis=0).astype(int).tolist()
    _lines(coder, live_row)
    _lines(coder, live_column)
    pad = period + 2
    column, near, far, cross = [FRESH] * cols, [FRESH] * 64, [FRESH] * 64, [FRESH] * 256
    mixers = [Mixer() for _ in range(3)]
    lines = [[0] * (cols + 2 * pad) for _ in range(3)]
    for r in range(rows):
        a, b, d = lines[r % 3], lines[(r + 2) % 3], lines[(r + 1) % 3]
        a[:] = [0] * len(a)
        row = mask[r].tolist()
        if not live_row[r]:
            mask[r] = 0
            continue
        here = [FRESH]
        for k in range(cols):
            if not live_column[k]:
                continue
            i = k + pad
            w, n, ne = a[i - 1], b[i], b[i + 1]
            near_key = w | a[i - 2] << 1 | n << 2 | d[i] << 3 | b[i - 1] << 4 | ne << 5
            far_key = w | a[i - period] << 1 | a[i - period + 1] << 2 | a[i - period - 1] << 3
            far_key |= n << 4 | ne << 5
            cross_key = _grade(column[k]) | _grade(here[0]) << 4
            tables = near, column, here, far, cross
            keys = near_key, k, 0, far_key, cross_key
            a[i] = coder.code(mixers[w + n], tables, keys, row[k])
        mask[r] = a[pad : pad + cols]


def code_values(coder: Coder, values: NDArray[np.int32], column: NDArray[np.int32]) -> None:
    """Encode whole numbers, each in a column, all (n,), or decode into `values`."""
    plain = [FRESH] * 1024
    after = [[FRESH] * 1024 for _ in range(16)]
    below = [[FRESH] * 1024 for _ in range(16)]
    mixers = [Mixer() for _ in range(43)]
    left, last = 0, [0] * (int(column.max(initial=0)) + 1)
    for i, (v, c) in enumerate(zip(values.tolist(), column.tolist(), strict=True)):
        left = last[c] = _code_value(
            coder, mixers, (plain, after[left], below[last[c]]), v, values, i
        )


def _code_value(
    coder: Coder,
    mixers: list[Mixer],
    tables: Sequence[Cells],
    v: int,
    values: NDArray[np.int32],
    i: int,
) -> int:
    def code(node: int, mixer: int, bit: int) -> int:
        return coder.code(mixers[mixer], tables, (node, node, node), bit)

    if not code(0, 0, int(v != 0)):
        values[i] = 0
        return 0
    negative = code(1, 1, int(v < 0))
    side = 512 * negative
    length = 1
    while length < 31 and code(side + 2 + length, 2 + length, int(abs(v).bit_length() > length)):
        length += 1
    found = 1
    for d in range(length - 2, -1, -1):
        if found >= 128:
            node, mixer = 34 + d, 42
        else:
            node = 192 + found if length > 7 else 63 + (1 << (length - 1)) + found
            mixer = 34 + found.bit_length()
        found = found << 1 | code(side + node, mixer, (abs(v) >> d) & 1)
    values[i] = -found if negative else found
    return int(2 * min(length, 7) + negative)


def _hashed(a: int, b: int, c: int) -> int:
    h = ((a * 0x9E3779B1) ^ (b * 0x85EBCA6B) ^ (c * 0xC2B2AE35)) & 0xFFFFFFFF
    return (h ^ h >> 15) & (HASHED - 1)


class Bytes:
    """The model of bytes in rows of `width`; it remembers across calls of `code`."""

    def __init__(self, width: int) -> None:
        """Start knowing nothing."""
        self.width = width
        self.tables = [[FRESH] * (256 * width)] + [[FRESH] * HASHED for _ in range(3)]
        self.mixers = [Mixer() for _ in range(width)]

    def code(self, coder: Coder, data: bytearray) -> None:
        """Encode `data`, or decode into it."""
        width = self.width
        for i in range(len(data)):
            place = i % width
            one, two, three = (data[i - j] if i >= j else 0 for j in (1, 2, 3))
            up = data[i - width] if i >= width else 0
            if width == 1:
                up = one << 16 | two << 8 | three
            node = 1
            for d in range(7, -1, -1):
                key = place << 8 | node
                keys = (
                    key,
                    _hashed(key, one, 1),
                    _hashed(key, up, 2),
                    _hashed(key, one, two + 3),
                )
                bit = coder.code(self.mixers[place], self.tables, keys, (data[i] >> d) & 1)
                node = node << 1 | bit
            data[i] = node & 255


@cache
def _primed(width: int, primer: bytes) -> Bytes:
    model = Bytes(width)
    model.code(Coder(), bytearray(primer))
    return model


def primed(width: int, primer: bytes) -> Bytes:
    """Return a model that has seen the primer."""
    seen, model = _primed(width, primer), Bytes(0)
    model.width, model.tables = width, [list(table) for table in seen.tables]
    model.mixers = [mixer.copy() for mixer in seen.mixers]
    return model
