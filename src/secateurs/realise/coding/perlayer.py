"""The paper's table of a packed network: bits of a weight and of its index, layer by layer."""

from secateurs.realise.coding.container import open_
from secateurs.realise.coding.ledger import Line, ledger

HEAD = (
    "layer",
    "weights",
    "density %",
    "weight bits",
    "coded",
    "index bits",
    "coded",
    "bytes",
    "% of dense",
    "ratio",
)
"""Columns of `layer_cells`: bits before coding are those of fields of one width, after it
those of the file; both for each weight that stays, fillers and tables spread over them."""


def layer_cells(blob: bytes, *, gap_bits: int = 5) -> list[tuple[str, ...]]:
    """Return a line for every tensor of two axes or more, the others together, and the file.

    Before coding a weight has ⌈log₂ values⌉ bits and its index `gap_bits`, with a filler
    counted as a weight.

    Source: Han, Mao & Dally 2016, arXiv:1510.00149, tables 2 to 5.
    """
    shapes = {name: entry.shape for name, entry in open_(blob)[0].entries.items()}
    lines = ledger(blob, gap_bits=gap_bits)
    layers = [x for x in lines if len(shapes.get(x.name, ())) > 1]
    rest = [x for x in lines if x not in layers]
    total = Line(
        "whole file",
        weights=sum(x.weights for x in lines),
        kept=sum(x.kept for x in lines),
        dense=sum(x.dense for x in lines),
        other=len(blob),
    )
    other = Line("biases, norms, names", other=sum(x.bytes for x in rest))
    other = Line(other.name, other=other.other, dense=sum(x.dense for x in rest))
    return [*(_cells(x, gap_bits) for x in layers), _cells(other, 0), _cells(total, 0)]


def _cells(x: Line, gap_bits: int) -> tuple[str, ...]:
    kept = max(1, x.kept)
    fields = x.fields / kept

    def bits(value: float) -> str:
        return f"{value:.2f}" if gap_bits and x.kept else ""

    return (
        x.name,
        f"{x.weights:,}" if x.weights else "",
        f"{100 * x.kept / x.weights:.1f}" if x.weights else "",
        bits(x.value_bits * (fields if x.fields else 1)),
        bits(8 * (x.values + x.tables) / kept),
        bits(gap_bits * fields),
        bits(8 * x.indices / kept),
        f"{x.bytes:,}",
        f"{100 * x.bytes / x.dense:.2f}" if x.dense else "",
        f"{x.dense / max(1, x.bytes):.1f}x" if x.dense else "",
    )
