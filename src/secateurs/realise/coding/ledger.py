"""Where every byte of a file went, beside what the paper's formula would have said."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.realise.coding import huffman
from secateurs.realise.coding.container import open_
from secateurs.realise.coding.gaps import gaps
from secateurs.realise.coding.plain import DTYPES
from secateurs.realise.coding.shared import Shared, Uniform
from secateurs.realise.coding.tensors import Streams, unpack


@dataclass(frozen=True)
class Line:
    """Bytes of one tensor, or of what belongs to none; all in bytes but `weights` and `kept`.

    values     the codes of the weights
    indices    which weights they are
    tables     codebooks, steps and Huffman tables
    header     names, shapes, codecs, sizes and the recipe
    other      magic, version, checksum, and zeros at the end
    dense      the plain tensor
    value_bits of a weight before coding: the bits of its type, or of an entry's number
    fields     weights and fillers of the paper's gaps; 0 where weights are plain
    paper      Deep Compression's formula: fillers and weights times the bits of a code and a
               gap, and a codebook of 32-bit values; no Huffman code, no headers. The plain
               tensor where weights are not shared.
    """

    name: str
    weights: int = 0
    kept: int = 0
    values: int = 0
    indices: int = 0
    tables: int = 0
    header: int = 0
    other: int = 0
    dense: int = 0
    paper: float = 0
    value_bits: int = 0
    fields: int = 0

    @property
    def bytes(self) -> int:
        """What the file spends on this line."""
        return self.values + self.indices + self.tables + self.header + self.other


def ledger(blob: bytes, *, gap_bits: int = 5) -> list[Line]:
    """Return a line a tensor, then the header and the rest; their bytes sum to len(blob).

    Source of the formula: Han, Mao & Dally 2016, arXiv:1510.00149, sections 2 and 3, with
    `gap_bits` for a relative gap.
    """
    header, streams = open_(blob)
    lines = [_line(name, s, gap_bits) for name, s in streams.items()]
    used = sum(len(s) for s in streams.values())
    entries = header.size
    rest = len(blob) - used - entries
    return [*lines, Line("header", header=entries), Line("other", other=rest)]


def _line(name: str, s: Streams, gap_bits: int) -> Line:
    coded = unpack(s, repr(name))
    table = 0
    if s.value == "huffman" and s.kind != "plain":
        table += huffman.table_size(s.values)
    mask = coded != 0 if isinstance(coded, Tensor) else coded.mask
    paper: float = s.dense_bytes
    bits, fields = 8 * DTYPES[s.dtype].itemsize, 0
    if isinstance(coded, Shared | Uniform):
        entries = coded.codebook.numel() if isinstance(coded, Shared) else 0
        if isinstance(coded, Uniform):
            entries = int(torch.unique(coded.level[mask]).numel())
        fields = gaps(mask.reshape(-1).numpy(), gap_bits).size
        bits = max(1, (entries - 1).bit_length())
        paper = (fields * (bits + gap_bits) + 32 * entries) / 8
    return Line(
        name,
        weights=mask.numel(),
        kept=int(mask.sum()),
        values=len(s.values) - table,
        indices=len(s.indices),
        tables=len(s.table) + table,
        dense=s.dense_bytes,
        paper=paper,
        value_bits=bits,
        fields=fields,
    )
