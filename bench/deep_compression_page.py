"""docs/results/deep-compression.md, from what bench/deep_compression*.py and coding.py left."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from secateurs.measure.table import aligned
from secateurs.realise.coding.perlayer import HEAD as COLUMNS
from secateurs.realise.coding.perlayer import layer_cells

TITLES = {
    "paper-lenet300": ("LeNet-300-100", "the paper's pipeline"),
    "past-lenet300": ("LeNet-300-100", "past it"),
    "paper-lenet5": ("LeNet-5", "the paper's pipeline"),
    "past-lenet5": ("LeNet-5", "past it"),
    "least-lenet5": ("LeNet-5", "past it, as small as it goes"),
    "past-resnet20": ("ResNet-20", "past it"),
}

HEAD = """# Deep Compression: the file is what gets small

MNIST for the LeNets, CIFAR-10 for ResNet-20; 5,000 images are held out to choose settings by, and
the test set was read once per model, at the end, of the network that was read back from its file.
Bytes are the length of the whole `.secz` file: weights, indices, codebooks, biases, names, shapes
and checksum; a kilobyte is 1,000 bytes, and the dense network is 4 bytes a parameter. One standard
error of an error rate of 1.7 % on 10,000 images is 0.13 points. ± is the standard deviation over
seeds.
"""

HOW = """**The paper's pipeline**: cut by magnitude to the paper's densities and retrain, 64
shared values a layer (LeNet-5: 256 in convolutions, 32 in linear layers), linear start, train
the values, gaps of 5 bits, Huffman codes. Biases are float16 here; the paper's sizes leave
biases and Huffman tables out, which is why `fc1` keeps about 7 % and not the paper's 8 %.

**Past it**, by options of `deep_compression`: `pruning=dns` with `ranking=lamp` (cut and splice
while training; dead biases go too); `learn=weights` (the weights behind at most 8 values a layer
go on learning and change over to another value, or to zero, by error + price x bits); biases of
4 bits, values in half precision, the context coder.

Settings of both ways on LeNet-5, of the paper's on LeNet-300-100 and of ResNet-20 were changed
after a first run, for its length or its error on held-out images; that run's test error had
been printed as well.
"""

FIRST = """LeNet-5 first loses the channels that make 70 % of its MACs (`channels=0.3`; as small as
it goes: 80 %), physically; its ratio is still to the network as it was.
"""
CIFAR = """ResNet-20 learns for 8 epochs from 45,000 augmented images; pruning and tuning have 4
and 2 epochs more, which a dense network would gain by as well. Its values have 4 bits, and its
file carries four numbers for each channel of its batch norms, in half precision: whole levels of
4 bits, as in the LeNets, made it 1,400 bytes smaller and cost 3 points. Where the error is below
the dense network's, that is the longer training.
"""

RECORDS = """## Other published records

Figures as remembered from the papers, not read again for this page; error % on the MNIST test
set. Sizes of others are as they report them, often without biases, headers or the positions of
layers kept dense.

| network | source | error % | size | ratio |
|---|---|---|---|---|
| LeNet-300-100 | Han et al. 2016, arXiv:1510.00149 | 1.58 | 27 KB | 40x |
| LeNet-300-100 | Ullrich et al. 2017, arXiv:1702.04008 | 1.94 | 16.7 KB | 64x |
| LeNet-300-100 | long goal of this project | 1.9 | 5.3 KB | 201x |
| LeNet-5 | Han et al. 2016 | 0.74 | 44 KB | 39x |
| LeNet-5 | Ullrich et al. 2017 | 0.97 | 10.6 KB | 162x |
| LeNet-5 | Louizos et al. 2017, arXiv:1705.08665 | 1.0 | 2.3 KB | 771x |
| LeNet-5 | Havasi et al. 2019, arXiv:1810.00440 | 0.69 | 3.03 KB | 555x |
| LeNet-5 | the same | 0.96 | 1.52 KB | 1110x |
| LeNet-5 | long goal of this project | 0.96 | 1.4 KB | 1230x |
"""


def page(jobs: Mapping[str, Any], out: Path, command: str) -> str:
    """Write what has been measured so far as one Markdown page."""
    found = {name: _read(out, name) for name in jobs}
    parts = [HEAD, aligned(_summary(jobs, found)), "", HOW]
    parts += [FIRST] if found["past-lenet5"] else []
    parts += [CIFAR] if found["past-resnet20"] else []
    for name, runs in found.items():
        if runs:
            seed = min(runs)
            parts += [f"## {', '.join(TITLES[name])}, seed {seed}", ""]
            parts += ["Bits for each weight that stays, before and after coding.", ""]
            blob = (out / f"{name}-{seed}.secz").read_bytes()
            parts += [aligned([COLUMNS, *layer_cells(blob)]), ""]
    parts.append(RECORDS)
    for part in ("quantisation", "large", "coders", "resnet20", "speed"):
        if (text := out / f"{part}.md").exists():
            parts.append(text.read_text())
    if absent := [name for name, runs in found.items() if not runs]:
        parts.append(f"Not measured yet: {', '.join(absent)}.\n")
    parts.append(f"The LeNets and ResNet-20 were made by `{command}`.\n")
    return "\n".join(parts)


def _read(out: Path, name: str) -> dict[int, dict[str, Any]]:
    files = sorted(out.glob(f"{name}-*.json"))
    return {int(f.stem.rpartition("-")[2]): json.loads(f.read_text()) for f in files}


def _summary(jobs: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    head = ("network", "way", "seeds", "dense error %", "error %", "bytes", "ratio", "wanted")
    lines = [head]
    for name, runs in found.items():
        if not runs:
            continue
        rows, (size, error) = list(runs.values()), jobs[name].wanted
        aim = f"{size:,} bytes at {error} %"
        if jobs[name].over_dense:
            aim = f"{size:,} bytes, dense error + {error:g}"
        lines.append(
            (
                *TITLES[name],
                str(len(rows)),
                spread([r["dense_test"] for r in rows]),
                spread([r["test"] for r in rows]),
                spread([r["bytes"] for r in rows], 0),
                spread([r["dense_bytes"] / r["bytes"] for r in rows], 1) + "x",
                aim,
            )
        )
    return lines


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation, or the one value there is."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{mean(values):,.{digits}f} ± {stdev(values):,.{digits}f}"
