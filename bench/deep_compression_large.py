"""Pack networks of the paper's size: random weights, cut to the paper's densities and bits.

    python bench/deep_compression_large.py --nets alexnet vgg16

Random positions cost more bits than trained ones, which cluster. Prints bytes, ratio, seconds
and the largest memory for the paper's codes, for the smallest that read quickly, and for the
smallest of all.
"""

import argparse
import time
from math import log2
from pathlib import Path

import torch

from secateurs.core.cut import keep_top
from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned
from secateurs.models.create import create
from secateurs.realise.coding.container import decode, encode
from secateurs.realise.coding.ledger import Line, ledger
from secateurs.realise.coding.shared import Coded
from secateurs.realise.sharing import table

MODELS = {"alexnet": "alexnet_caffe", "vgg16": "torchvision:vgg16"}
CONV = {
    "alexnet": (84, 38, 35, 37, 37),
    "vgg16": (58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36),
}
LINEAR = {"alexnet": (9, 9, 25), "vgg16": (4, 4, 23)}
"""Per cent that stay, layer by layer: Han et al. 2016, tables 4 and 5."""
WANTED = {"alexnet": 35, "vgg16": 49}
CODES = {
    "paper": {"indices": ("gaps4+huffman", "gaps5+huffman"), "values": ("huffman",)},
    "smallest": {},
    "slow": {"patient": True},
}
HEAD = (
    *("network", "code", "bytes", "ratio", "wanted", "weight bits", "index bits"),
    *("of random places", "pack s", "unpack s", "memory packing", "unpacking"),
)
ABOUT = """## Networks of the paper's size

AlexNet and VGG-16 with random weights, cut to the paper's densities, 256 values in convolutions
and 32 in linear layers; biases are zero. "Of random places" is the least that any code spends on
an index when places are random, as they are here; trained ones cluster, and the paper's cost
1.2 to 2.6 bits in AlexNet's convolutions and 3.2 to 3.7 in its linear layers. Memory is that of
the process beyond what importing took, the packed tensors in memory included, by the dense
bytes. `smallest` is what `pack` does: the smallest that one core reads, by an estimate, no slower
than a disk of 100 MB/s gives the dense file, AlexNet's in 2.4 s and VGG-16's in 5.5 s; `slow` is
the smallest of all. Made by `python bench/deep_compression_large.py`, on two cores that did nothing
else; only the estimate is of one.
"""


def tensors(net: str, seed: int = 0) -> dict[str, Coded]:
    """Return random weights cut and shared as the paper did; zero biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = create(MODELS[net])
    densities = {4: list(CONV[net]), 2: list(LINEAR[net])}
    found: dict[str, Coded] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            found[name] = torch.zeros(parameter.shape)
            continue
        weight = torch.randn(parameter.shape, generator=generator)
        keep = round(densities[parameter.dim()].pop(0) / 100 * weight.numel())
        mask = keep_top(weight.abs().flatten(), keep).view(weight.shape)
        found[name] = table(weight, mask, 1 << (8 if parameter.dim() == 4 else 5))
        del weight, mask
    return found


def memory(what: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` the most since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(what))
    return 1024 * int(found.split()[1])


def forget() -> None:
    """Let the most memory so far be what it is now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def entropy_bits(lines: list[Line]) -> float:
    """Bits a weight that stays takes at least to say where it is, when places are random."""
    total = 0.0
    for x in lines:
        p = x.kept / x.weights
        total -= x.weights * (p * log2(p) + (1 - p) * log2(1 - p))
    return total / sum(x.kept for x in lines)


def row(net: str, code: str, made: dict[str, Coded], base: int) -> tuple[str, ...]:
    forget()
    start = time.perf_counter()
    blob = encode(made, None, **CODES[code])
    packed = time.perf_counter()
    pack_memory = memory("VmHWM") - base
    forget()
    again = time.perf_counter()
    decode(blob)
    unpacked = time.perf_counter()
    unpack_memory = memory("VmHWM") - base
    lines = [x for x in ledger(blob) if x.name.endswith("weight")]
    kept, dense = sum(x.kept for x in lines), sum(x.dense for x in ledger(blob))
    index = 8 * sum(x.indices for x in lines) / kept
    return (
        *(net, code, f"{len(blob):,}", f"{dense / len(blob):.1f}x", f"{WANTED[net]}x"),
        f"{8 * sum(x.values for x in lines) / kept:.2f}",
        f"{index:.2f}",
        f"{entropy_bits(lines):.2f}",
        *(f"{packed - start:.0f}", f"{unpacked - again:.1f}"),
        *(f"{m / dense:.1f}x" for m in (pack_memory, unpack_memory)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--codes", nargs="+", default=list(CODES), choices=list(CODES))
    parser.add_argument("--out", type=Path, help="A Markdown page to add the rows to.")
    args = parser.parse_args()
    lines = []
    for net in args.nets:
        base = memory("VmRSS")
        made = tensors(net)
        for code in args.codes:
            lines.append(row(net, code, made, base))
            print(aligned([HEAD, *lines]), flush=True)
        del made
    if args.out:
        write_whole(args.out, f"{ABOUT}\n{aligned([HEAD, *lines])}\n")


if __name__ == "__main__":
    main()
