"""How small do the coders make pruned layers, and how fast do they decode, side by side?

    python bench/coding.py                        # LeNet-300-100-like and AlexNet-like layers
    python bench/coding.py --checkpoint net.pt    # the weights of a state dict of your own
    python bench/coding.py --large                # AlexNet's own fc6 and fc7

All coders get the same whole numbers: every weight is one of 2**bits - 1 levels or zero. A
size is that of the streams and their tables, without names and shapes. `nncodec` is the ISO
neural-network coder (ISO/IEC 15938-17), the best of its settings; it is shown where it is
installed: pip install nncodec. The rate counts all weights, zeros included, on one core; 100
MB/s of dense float32 would be 25 million a second.
"""

import argparse
import lzma
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from secateurs.realise.coding import INDICES, VALUES, Uniform
from secateurs.realise.coding.native import native
from secateurs.realise.coding.tensors import Streams, pack, unpack

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
ALEXNET = {"fc6/16": (1024, 2304), "fc7/16": (1024, 1024), "conv3": (384, 192, 3, 3)}
ALEXNET_LARGE = {"fc6": (4096, 9216), "fc7": (4096, 4096)}

CODERS: dict[str, tuple[list[str], list[str]]] = {
    "gaps": (["gaps5"], ["packed"]),
    "huffman": (["gaps5+huffman"], ["huffman"]),
    "context": (["context"], ["context"]),
    "smallest": (list(INDICES), list(VALUES)),
}


def synthetic(shape: tuple[int, ...], density: float, bits: int, seed: int) -> np.ndarray:
    """Return levels like those of a pruned layer: places at random, the smallest ones cut."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=shape)
    cut = np.quantile(np.abs(weights), 1 - density)
    return levels(np.where(np.abs(weights) > cut, weights, 0), bits)


def levels(weights: np.ndarray, bits: int) -> np.ndarray:
    """Return each non-zero weight as the nearest of 2**bits - 1 levels that is not zero."""
    most = 2 ** (bits - 1) - 1
    step = np.abs(weights).max() / most or 1.0
    nearest = np.rint(weights / step)
    return np.where(weights == 0, 0, np.where(nearest == 0, np.sign(weights), nearest)).astype("i4")


def iso(q: np.ndarray) -> tuple[int, Callable[[], Any]]:
    """Return the bytes of the ISO coder at the best of its settings, and a call that decodes."""
    from nncodec.extensions import deepCABAC
    from nncodec.nnc_core.hdsp.hdsp_tool import HDSP_OPTS_OFF

    off, best = HDSP_OPTS_OFF(), None
    for profile in (0, 1):
        for unary in (4, 10, 16):
            coder = deepCABAC.Encoder()
            coder.initCtxModels(unary, 1)
            skipped = np.array([not row.any() for row in q], np.int32)
            coder.encodeLayer(q, 0, 0, profile, 0, profile, skipped, *off, 0, 0)
            blob = coder.finish()
            if best is None or len(blob) < len(best[0]):
                best = blob, unary, profile
    assert best is not None
    blob, unary, profile = best

    def decode() -> None:
        coder = deepCABAC.Decoder()
        coder.setStream(blob)
        coder.initCtxModels(unary)
        coder.decodeLayer(np.zeros_like(q), 0, 0, profile, 0, *off, 0, 0)

    return len(blob), decode


def seconds(call: Callable[[], Any]) -> float:
    """Return the median time of a few calls."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        if sum(times) > 5:
            break
    return sorted(times)[len(times) // 2]


def row(name: str, q: np.ndarray) -> dict[str, Any]:
    """Return the sizes in bytes and the rates in weights per second of one layer."""
    narrow = q.astype(np.int8 if np.abs(q).max() < 128 else np.int16).tobytes()
    out: dict[str, Any] = {"layer": name, "weights": q.size, "kept": int((q != 0).sum())}
    out["dense"] = 4 * q.size
    out["zlib"] = len(zlib.compress(narrow, 9))
    out["lzma"] = len(lzma.compress(narrow, format=lzma.FORMAT_ALONE))
    layer = Uniform(torch.tensor(1.0), torch.from_numpy(q))
    streams: dict[str, Streams] = {}
    for coder, (indices, values) in CODERS.items():
        streams[coder] = pack(layer, indices, values)
        out[coder] = len(streams[coder]) - len(streams[coder].table)
    out["rate huffman"] = q.size / seconds(lambda: unpack(streams["huffman"], name))
    out["rate context"] = q.size / seconds(lambda: unpack(streams["context"], name))
    try:
        out["nncodec"], decode = iso(q)
        out["rate nncodec"] = q.size / seconds(decode)
    except ImportError:
        pass
    return out


def layers(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the layers asked for, as levels."""
    if options.checkpoint:
        path = Path(options.checkpoint)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        for name, weight in state.items():
            if weight.is_floating_point() and weight.dim() > 1:
                yield name, levels(weight.float().numpy(), options.bits)
        return
    for name, shape in LENET.items():
        yield f"LeNet {name}", synthetic(shape, options.density, options.bits, options.seed)
    for name, shape in (ALEXNET_LARGE if options.large else ALEXNET).items():
        density = 0.35 if name.startswith("conv") else 0.09
        yield f"AlexNet {name}", synthetic(shape, density, options.bits, options.seed)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown: sizes as bytes, then ratios, then rates."""
    sizes = [*("dense", "zlib", "lzma", "gaps", "huffman", "context", "smallest", "nncodec")]
    sizes = [s for s in sizes if s in rows[0]]
    rates = [r for r in ("rate huffman", "rate context", "rate nncodec") if r in rows[0]]
    head = ["layer", "kept", *sizes, "context / huffman"]
    head += ["context / nncodec"] if "nncodec" in sizes else []
    lines = [[*head, *(f"M/s {rate[5:]}" for rate in rates)], ["---"] * (len(head) + len(rates))]
    total = {s: sum(r[s] for r in rows) for s in (*sizes, "weights", "kept")}
    for r in [*rows, {"layer": "all", **total}]:
        cells = [r["layer"], f"{r['kept'] / r['weights']:.1%}", *(str(r[s]) for s in sizes)]
        cells += [
            f"{r['context'] / r[other]:.3f}" for other in ("huffman", "nncodec") if other in r
        ]
        lines.append([*cells, *(f"{r[rate] / 1e6:.1f}" if rate in r else "" for rate in rates)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="a state dict: .pt or .safetensors")
    parser.add_argument("--bits", type=int, default=5, help="of a weight, before coding")
    parser.add_argument("--density", type=float, default=0.05, help="of the LeNet layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true", help="AlexNet's layers in full size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if native() is None:
        print("no compiled coder: rates are those of Python", file=sys.stderr)
    print(table([row(name, q) for name, q in layers(options)]))


if __name__ == "__main__":
    main()
