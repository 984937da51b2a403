"""One file for a whole network: `.secz`, laid out in docs/format.md.

    magic b"SECZ", version, checksum, size of the header, header, the streams, zeros

`decode` is the exact inverse of `encode`, bit for bit, on any platform. Whatever bytes it is
given, it returns or raises one `FileError` that names the field, and asks for memory in
proportion to the file: a file of n bytes never claims more than EXPANSION * n + FREE.
"""

import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.core.errors import FileError
from secateurs.core.whole import write_bytes
from secateurs.realise.coding import header as head
from secateurs.realise.coding import pace
from secateurs.realise.coding.bits import Reader, varint
from secateurs.realise.coding.header import Entry, Header
from secateurs.realise.coding.indices import INDICES
from secateurs.realise.coding.shared import Coded, Shared
from secateurs.realise.coding.tensors import Streams, pack, unpack
from secateurs.realise.coding.values import VALUES

MAGIC = b"SECZ"
VERSION = 1
EXPANSION = 1 << 12
FREE = 1 << 20
"""Bytes of plain tensors that any file, however short, may claim."""


@dataclass(frozen=True)
class Contents:
    """What a file holds: tensors, plain or of few values, by name, and the recipe."""

    tensors: dict[str, Coded]
    recipe: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Tensor]:
        """Return plain tensors by name, ready for `load_state_dict`; tied names share one."""
        made: dict[int, Tensor] = {}
        for coded in self.tensors.values():
            if id(coded) not in made:
                made[id(coded)] = coded if isinstance(coded, Tensor) else coded.dense()
        return {name: made[id(coded)] for name, coded in self.tensors.items()}


def encode(
    tensors: Mapping[str, Coded],
    recipe: Mapping[str, Any] | None = None,
    *,
    indices: Collection[str] = tuple(INDICES),
    values: Collection[str] = tuple(VALUES),
    patient: bool = False,
) -> bytes:
    """Return the file: every tensor by those of the allowed codecs that make it smallest.

    Only codecs are used that one core reads no slower than a disk of 100 MB/s would give the
    plain tensors, or within half a second in all (see `pace`); where none of those is allowed,
    a bitmask and fields.
    Deep Compression's own file is `indices=["gaps5+huffman"], values=["huffman"]`.

    Args:
        tensors: by name; plain, `Shared` or `Uniform`. One object, or one view of one
            storage, under several names is stored once.
        recipe: what made them, as JSON can hold it.
        indices, values: names out of INDICES and VALUES.
        patient: take the truly smallest, however long it takes to read.
    """
    header, streams = Header(recipe=dict(recipe or {}), order=tuple(tensors)), []
    first: dict[Any, str] = {}
    unique = {_identity(coded): _sizes(coded) for coded in tensors.values()}
    whole = sum(weights * element for weights, element in unique.values())
    for name, coded in tensors.items():
        of = first.setdefault(_identity(coded), name)
        if of != name:
            header.ties[name] = of
            continue
        try:
            weights, element = _sizes(coded)
            seconds = inf if patient else pace.within(weights, element, whole)
            packed = pack(coded, indices, values, seconds=seconds)
        except FileError as error:
            raise FileError(f"{name!r}: {error}") from error
        header.entries[name] = head.entry(packed)
        streams += [packed.table, packed.indices, packed.values]
    coded_header = head.write(header)
    body = b"".join([varint(len(coded_header)), coded_header, *streams])
    claimed = sum(e.work for e in header.entries.values())
    body += bytes(max(0, -(-(claimed - FREE) // EXPANSION) - len(body)))
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def decode(blob: bytes, *, where: str = "the file") -> Contents:
    """Return what `encode` was given, each tensor canonical and on the CPU.

    Raises `FileError`, naming `where` and the field, for anything `encode` did not write.
    """
    header, streams = open_(blob, where=where)
    tensors: dict[str, Coded] = {}
    for name in header.order:
        of = header.ties.get(name)
        field_ = f"{where}, {name!r}"
        tensors[name] = tensors[of] if of is not None else unpack(streams[name], field_)
    return Contents(tensors, dict(header.recipe))


def open_(blob: bytes, *, where: str = "the file") -> tuple[Header, dict[str, Streams]]:
    """Return the header and the streams of each tensor, not yet decoded."""
    reader = Reader(blob, where)
    if len(blob) < 4 or reader.take(4, "the magic") != MAGIC:
        raise FileError(f"{where} is not a .secz file: it starts with {blob[:4]!r}, not {MAGIC!r}")
    version = reader.take(1, "the version")[0]
    if version != VERSION:
        raise FileError(f"{where} has version {version}; this reader knows version {VERSION}")
    checksum = int.from_bytes(reader.take(4, "the checksum"), "little")
    if zlib.crc32(memoryview(blob)[reader.at :]) != checksum:
        raise FileError(f"{where} is damaged: its checksum is not {checksum:08x}, as it says")
    size = reader.varint("the size of the header")
    header = replace(head.read(reader.take(size, "the header"), where), size=size)
    claimed = sum(e.work for e in header.entries.values())
    if claimed > EXPANSION * len(blob) + FREE:
        raise FileError(
            f"{where} claims tensors of {claimed} bytes; {len(blob)} bytes may hold at most "
            f"{EXPANSION * len(blob) + FREE}"
        )
    streams = {name: _streams(reader, name, e) for name, e in header.entries.items()}
    if any(reader.rest()):
        raise FileError(f"{where} goes on after its last tensor")
    return header, streams


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Coded],
    recipe: Mapping[str, Any] | None = None,
    *,
    indices: Collection[str] = tuple(INDICES),
    values: Collection[str] = tuple(VALUES),
    patient: bool = False,
) -> int:
    """Write a file whole or not at all; returns its size in bytes.

    A full disk or a killed process leaves what was there before.
    """
    blob = encode(tensors, recipe, indices=indices, values=values, patient=patient)
    write_bytes(path, blob)
    return len(blob)


def read(path: str | os.PathLike[str]) -> Contents:
    """Return what a file holds."""
    try:
        blob = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode(blob, where=str(path))


def _streams(reader: Reader, name: str, e: Entry) -> Streams:
    table, indices, values = (
        reader.take(size, f"the {part} of {name!r}")
        for size, part in zip(e.sizes, ("table", "indices", "values"), strict=True)
    )
    return Streams(e.kind, e.dtype, e.shape, e.index, indices, e.value, values, table)


def _sizes(coded: Coded) -> tuple[int, int]:
    """Return the weights of a tensor, and the bytes that one takes in the dense tensor."""
    if isinstance(coded, Tensor):
        return coded.numel(), coded.element_size()
    mask = coded.index if isinstance(coded, Shared) else coded.level
    return mask.numel(), coded.dtype.itemsize


def _identity(coded: Coded) -> Any:
    if not isinstance(coded, Tensor) or coded.numel() == 0:
        return id(coded)
    return (
        *(coded.untyped_storage().data_ptr(), coded.storage_offset()),
        *(tuple(coded.shape), coded.stride(), coded.dtype),
    )
