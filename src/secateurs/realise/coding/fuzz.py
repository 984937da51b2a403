"""What does the reader do with a damaged file? Run as a program, it looks for as long as asked.

    python -m secateurs.realise.coding.fuzz --seconds 600 --seed 0

Guided by coverage: a mutant that reaches a line of this package that none reached before
becomes a parent. Anything but a result or a `FileError` is printed, saved, and exit code 1.
"""

import argparse
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from secateurs.core.errors import FileError
from secateurs.realise.coding import context
from secateurs.realise.coding.bits import Reader, varint
from secateurs.realise.coding.container import MAGIC, VERSION, decode, encode
from secateurs.realise.coding.indices import INDICES
from secateurs.realise.coding.primer import PRIMER
from secateurs.realise.coding.shared import Coded, Shared, Uniform
from secateurs.realise.coding.values import VALUES

HERE = str(Path(__file__).parent)


def corpus() -> list[bytes]:
    """Return small files that use every codec and every kind of tensor."""
    keep = torch.arange(60).reshape(6, 10) % 4 == 0
    index = torch.where(keep, torch.arange(60).reshape(6, 10) % 5, -1)
    tensors: dict[str, Coded] = {
        "a.weight": Shared(torch.linspace(-1, 1, 5), index),
        "a.bias": torch.linspace(0, 1, 6),
        "b.weight": Uniform(torch.tensor(0.5), index + 1),
        "c": torch.tensor(3),
        "d.weight": torch.where(keep, torch.linspace(-1, 1, 60).reshape(6, 10), 0).half(),
    }
    pairs = [*((i, "packed") for i in INDICES), *(("bitmask", v) for v in VALUES)]
    files = [encode(tensors, {"seed": 0}, indices=[i], values=[v]) for i, v in pairs]
    rows = torch.where(torch.arange(6)[:, None] % 2 == 0, index.clamp(min=0), -1)
    structured: dict[str, Coded] = {
        "w": Shared(torch.linspace(-1, 1, 5), rows),
        "tied": torch.zeros(0),
    }
    return [*files, encode(structured, indices=["units"])]


def mutate(blob: bytes, rng: random.Random) -> bytes:
    """Return a damaged file: of its bytes, with the checksum put right, or of its plain header."""
    kind = rng.random()
    if kind < 0.2:
        return _damage(blob, rng)
    if kind < 0.5:
        return _seal(_damage(blob[9:], rng))
    reader = Reader(blob[9:], "a parent")
    try:
        inner = Reader(reader.take(reader.varint("size"), "header"), "a parent")
        size = inner.varint("size", 1 << 16)
    except FileError:
        return _seal(_damage(blob[9:], rng))
    plain = _damage(context.decode_bytes(inner.rest(), size, primer=PRIMER), rng)
    header = varint(len(plain)) + context.encode_bytes(plain, primer=PRIMER)
    return _seal(varint(len(header)) + header + reader.rest())


def outcome(blob: bytes) -> str:
    """Return what became of a file; lets everything but a `FileError` through."""
    try:
        decode(blob).state()
    except FileError as error:
        return str(error)
    return "decoded"


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Return damaged files, the same for the same seed."""
    rng, parents = random.Random(seed), corpus()
    for _ in range(count):
        yield mutate(rng.choice(parents), rng)


def _damage(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(6)
        if way == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif way == 1 and out:
            out[at % len(out)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif way == 2:
            del out[at : at + rng.randrange(1, 9)]
        elif way == 3:
            out[at:at] = varint(1 << rng.randrange(60))
        elif way == 4:
            out[at:at] = out[rng.randrange(len(out) + 1) :][: rng.randrange(9)]
        else:
            del out[at:]
    return bytes(out)


def _seal(body: bytes) -> bytes:
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def _reached(blob: bytes) -> set[tuple[str, int]]:
    lines: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        outcome(blob)
    finally:
        sys.settrace(None)
    return lines


def main() -> int:
    """Fuzz for a while; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, parents, seen = random.Random(options.seed), corpus(), set[tuple[str, int]]()
    for blob in parents:
        seen |= _reached(blob)
    ends, count = time.monotonic() + options.seconds, 0
    while time.monotonic() < ends:
        blob = mutate(rng.choice(parents), rng)
        count += 1
        began = time.monotonic()
        try:
            lines = _reached(blob)
        except Exception as error:
            Path("fuzz-failure.secz").write_bytes(blob)
            print(f"{error!r} after {count} files; the file is fuzz-failure.secz")
            return 1
        if time.monotonic() - began > 10:
            Path("fuzz-slow.secz").write_bytes(blob)
            print(f"a file of {len(blob)} bytes took more than 10 s; it is fuzz-slow.secz")
            return 1
        if lines - seen:
            seen |= lines
            parents.append(blob)
    print(f"{count} files, {len(parents)} parents, {len(seen)} lines reached, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
