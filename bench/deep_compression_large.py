"""Pack networks of the paper's size: random weights, cut to the paper's densities and bits.

    python bench/deep_compression_large.py --nets alexnet vgg16

Random positions cost more bits than trained ones, which cluster. Prints bytes, ratio, seconds
and the largest memory for the paper's codes and for the smallest.
"""

import argparse
import resource
import time

import torch

from secateurs.core.cut import keep_top
from secateurs.measure.table import aligned
from secateurs.models.create import create
from secateurs.realise.coding.container import decode, encode
from secateurs.realise.coding.ledger import ledger
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
}


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


def gigabytes() -> float:
    """The most memory this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--codes", nargs="+", default=list(CODES), choices=list(CODES))
    args = parser.parse_args()
    head = ("network", "code", "bytes", "ratio", "wanted", "weight bits", "index bits")
    lines = [(*head, "pack s", "unpack s", "memory GB")]
    for net in args.nets:
        made = tensors(net)
        before = gigabytes()
        for code in args.codes:
            start = time.perf_counter()
            blob = encode(made, None, **CODES[code])
            packed = time.perf_counter()
            decode(blob)
            unpacked = time.perf_counter()
            memory = f"{before:.1f} to {gigabytes():.1f}"
            weights = [x for x in ledger(blob) if x.name.endswith("weight")]
            kept = sum(x.kept for x in weights)
            dense = sum(x.dense for x in ledger(blob))
            lines.append(
                (
                    *(net, code, f"{len(blob):,}", f"{dense / len(blob):.1f}x"),
                    f"{WANTED[net]}x",
                    f"{8 * sum(x.values for x in weights) / kept:.2f}",
                    f"{8 * sum(x.indices for x in weights) / kept:.2f}",
                    *(f"{packed - start:.0f}", f"{unpacked - packed:.0f}", memory),
                )
            )
            print(aligned(lines), flush=True)


if __name__ == "__main__":
    main()
