"""What a file says about itself before the streams: names, shapes, codecs, sizes, recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from secateurs.core.errors import FileError
from secateurs.realise.coding import context
from secateurs.realise.coding.bits import Reader, varint
from secateurs.realise.coding.indices import INDICES
from secateurs.realise.coding.plain import DTYPES
from secateurs.realise.coding.primer import PRIMER
from secateurs.realise.coding.tensors import KINDS, Kind, Streams
from secateurs.realise.coding.values import FLOATS, VALUES

TIED = len(KINDS)
"""The kind of a name for a tensor that has a name already."""
LONGEST = 1 << 26
"""Bytes that a header may have."""
_FREE, _EXPANSION = 1024, 64


@dataclass(frozen=True)
class Entry:
    """A tensor as the header knows it; `sizes` are those of its table, indices and values."""

    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    index: str
    value: str
    sizes: tuple[int, int, int]

    @property
    def work(self) -> int:
        """Bytes that decoding takes, at least: four a weight, or the plain tensor."""
        return prod(self.shape) * max(4, DTYPES[self.dtype].itemsize)


@dataclass(frozen=True)
class Header:
    """The tensors in their order, other names for them, the recipe, and the bytes of all that."""

    entries: dict[str, Entry] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0


def entry(streams: Streams) -> Entry:
    """Return what the header says about a packed tensor."""
    sizes = len(streams.table), len(streams.indices), len(streams.values)
    return Entry(streams.kind, streams.dtype, streams.shape, streams.index, streams.value, sizes)


def write(header: Header) -> bytes:
    """Return the header as bytes: its size, then itself, context-coded after the primer."""
    raw = plain(header)
    if len(raw) > LONGEST:
        raise FileError(f"the header takes {len(raw)} bytes, more than {LONGEST}")
    coded = context.encode_bytes(raw, primer=PRIMER)
    return varint(len(raw)) + coded.ljust((len(raw) - _FREE) // _EXPANSION + 1, b"\0")


def read(blob: bytes, where: str) -> Header:
    """Return the header that `write` was given; `FileError` for anything else."""
    reader = Reader(blob, f"{where}, header")
    size = reader.varint("its size", min(LONGEST, _FREE + _EXPANSION * len(blob)))
    return _parse(context.decode_bytes(reader.rest(), size, primer=PRIMER), f"{where}, header")


def plain(header: Header) -> bytes:
    """Return the header before coding; docs/format.md says what each byte is."""
    try:
        text = json.dumps(header.recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FileError(f"a recipe holds what JSON can hold: {error}") from error
    recipe = text.encode() if header.recipe else b""
    out = bytearray(varint(len(recipe)) + recipe + varint(len(header.order)))
    before = b""
    for name in header.order:
        letters = name.encode()
        same = _alike(before, letters)
        out += varint(same) + varint(len(letters) - same) + letters[same:]
        before = letters
        if name in header.ties:
            out += bytes([TIED]) + varint(header.order.index(header.ties[name]))
            continue
        e = header.entries[name]
        values = list(FLOATS if e.kind == "plain" else VALUES)
        out += bytes([KINDS.index(e.kind), list(DTYPES).index(e.dtype)])
        out += varint(len(e.shape)) + b"".join(map(varint, e.shape))
        out += bytes([list(INDICES).index(e.index), values.index(e.value)])
        for size in e.sizes if e.kind != "plain" else e.sizes[1:]:
            out += varint(size)
    return bytes(out)


def _alike(a: bytes, b: bytes) -> int:
    """Return how many bytes two names share at their front."""
    size = 0
    while size < min(len(a), len(b)) and a[size] == b[size]:
        size += 1
    return size


def _parse(raw: bytes, where: str) -> Header:
    reader = Reader(raw, where)
    recipe = _recipe(reader.take(reader.varint("the size of the recipe"), "the recipe"), where)
    entries: dict[str, Entry] = {}
    ties: dict[str, str] = {}
    order: list[str] = []
    before = b""
    for number in range(reader.varint("the number of tensors", len(raw))):
        same = reader.varint("a name", len(before))
        letters = before[:same] + reader.take(reader.varint("the size of a name"), "a name")
        name, before = _name(letters, where), letters
        if name in entries or name in ties:
            raise FileError(f"{where}: two tensors are called {name!r}")
        kind = reader.take(1, f"the kind of {name!r}")[0]
        if kind == TIED:
            of = order[reader.varint(f"the tie of {name!r}", number - 1)] if number else name
            if of not in entries:
                raise FileError(f"{where}: {name!r} is tied to {of!r}, which is no tensor")
            ties[name] = of
        else:
            entries[name] = _entry(reader, kind, name)
        order.append(name)
    if reader.at != len(raw):
        raise FileError(f"{where}: {len(raw) - reader.at} bytes too many")
    return Header(entries, ties, tuple(order), recipe)


def _entry(reader: Reader, kind: int, name: str) -> Entry:
    def among(words: Any, what: str) -> str:
        number = reader.take(1, f"the {what} of {name!r}")[0]
        if number >= len(words):
            raise FileError(f"{reader.where}: {name!r} has {what} {number}, unknown here")
        return str(list(words)[number])

    if kind >= len(KINDS):
        raise FileError(f"{reader.where}: {name!r} has kind {kind}, unknown here")
    dtype = among(DTYPES, "dtype")
    dimensions = reader.varint(f"the dimensions of {name!r}", 32)
    shape = tuple(reader.varint(f"the shape of {name!r}", 1 << 48) for _ in range(dimensions))
    index = among(INDICES, "index codec")
    value = among(FLOATS if KINDS[kind] == "plain" else VALUES, "value codec")
    table = reader.varint(f"the table size of {name!r}") if KINDS[kind] != "plain" else 0
    sizes = (
        table,
        reader.varint(f"the index size of {name!r}"),
        reader.varint(f"the value size of {name!r}"),
    )
    return Entry(KINDS[kind], dtype, shape, index, value, sizes)


def _recipe(text: bytes, where: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: the recipe is not JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise FileError(f"{where}: the recipe is {type(recipe).__name__}, not an object")
    return recipe


def _name(letters: bytes, where: str) -> str:
    try:
        return letters.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{where}: the name {letters!r} is not UTF-8") from error
