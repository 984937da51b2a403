"""Deep Compression of both LeNets: the paper's pipeline, and past it, over seeds.

    python bench/deep_compression.py --data-dir DATA --out runs/deep-compression
    python bench/deep_compression.py --data-dir DATA --nets lenet300 --seeds 0

Killed, it goes on where it was; jobs that are done are read. Bytes are the length of the whole
file, the test set is read once per model, at the end. Writes docs/results/deep-compression.md.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from secateurs.measure.report import Report, write_whole
from secateurs.measure.table import aligned
from secateurs.methods.task import Target
from secateurs.realise.coding.ledger import Line, ledger
from secateurs.recovery.settings import Trainer
from secateurs.runs.job import Say, run
from secateurs.runs.recipe import Cut, Recipe

COMMAND = "python bench/deep_compression.py --data-dir DATA --out runs/deep-compression"
SGD = Trainer(nesterov=False, weight_decay=5e-4)
DENSE = {"lenet300": replace(SGD, epochs=12, lr=0.05), "lenet5": replace(SGD, epochs=8, lr=0.03)}
LABEL = "deep_compression"


@dataclass(frozen=True)
class Way:
    """How a dense network is made small, and what is claimed or wanted of it."""

    title: str
    cuts: dict[str, Cut]
    wanted: dict[str, str]


def _cut(density: float, recover: Trainer, **options: object) -> Cut:
    return Cut(LABEL, Target("density", density), options, recover)


PAPER = Way(
    "paper's pipeline",
    {
        "lenet300": _cut(
            0.08,
            replace(SGD, epochs=8, lr=0.02, weight_decay=1e-4),
            densities=("fc1.weight=0.08", "fc2.weight=0.09", "fc3.weight=0.26"),
            bits=6,
            tune=2,
        ),
        "lenet5": _cut(
            0.08,
            replace(SGD, epochs=4, lr=0.01, weight_decay=1e-4),
            densities=(
                *("conv1.weight=0.66", "conv2.weight=0.12"),
                *("fc1.weight=0.08", "fc2.weight=0.19"),
            ),
            bits=5,
            bits_of=("conv1.weight=8", "conv2.weight=8"),
            tune=1,
        ),
    },
    {"lenet300": "40x at 1.58 %", "lenet5": "39x at 0.74 %"},
)
_SMALL = {
    "code": "smallest",
    "codebook": "optimum",
    "biases": "levels",
    "entries": "float16",
}
SMALL = Way(
    "smaller",
    {
        "lenet300": _cut(
            0.055,
            replace(SGD, epochs=8, lr=0.03, weight_decay=3e-5),
            ranking="global",
            rounds=2,
            bits=4,
            tune=2,
            **_SMALL,
        ),
        "lenet5": _cut(
            0.018,
            replace(SGD, epochs=5, lr=0.02, weight_decay=3e-5),
            ranking="global",
            rounds=2,
            bits=4,
            tune=1,
            **_SMALL,
        ),
    },
    {"lenet300": "12,000 bytes at 1.8 %", "lenet5": "6,000 bytes at 0.9 %"},
)
WAYS = {"paper": PAPER, "small": SMALL}


@dataclass(frozen=True)
class Result:
    """One file: its bytes, the errors of both models in %, and where the bytes went."""

    dense_bytes: int
    bytes: int
    dense_error: float
    error: float
    dense_valid: float
    valid: float
    lines: list[Line]

    @property
    def ratio(self) -> float:
        return self.dense_bytes / self.bytes


def result(net: str, way: str, seed: int, data_dir: str | None, out: Path) -> Result:
    """Run a job, or read what it left; both ways start from the same dense network."""
    folder = out / f"{net}-{seed}" / way
    start = folder.parent / "paper" / "dense.safetensors"
    recipe = Recipe(
        net,
        "mnist",
        (replace(WAYS[way].cuts[net], recover=replace(WAYS[way].cuts[net].recover, seed=seed)),),
        dense=replace(DENSE[net], seed=seed) if way == "paper" else None,
        checkpoint=None if way == "paper" else str(start),
        data_dir=data_dir,
        batch_size=64,
        seed=seed,
    )
    path = folder / "report.json"
    if path.exists():
        plain = json.loads(path.read_text())
    else:
        report = run(recipe, folder, resume=folder.exists(), say=Say(line=print))
        plain = json.loads((folder / "report.json").read_text())
        assert isinstance(report, Report)
    blob = (folder / f"{LABEL}.secz").read_bytes()
    dense, pruned = plain["rows"]
    lines = ledger(blob)

    def error(row: dict, split: str) -> float:
        return 100 * (1 - row[split]["correct"] / row[split]["total"])

    return Result(
        dense_bytes=sum(line.dense for line in lines),
        bytes=len(blob),
        dense_error=error(dense, "test"),
        error=error(pruned, "test"),
        dense_valid=error(dense, "valid"),
        valid=error(pruned, "valid"),
        lines=lines,
    )


def spread(values: list[float], digits: int = 2) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def summary(found: dict[tuple[str, str], dict[int, Result]]) -> str:
    lines = [("network", "way", "seeds", "dense error %", "error %", "change", "bytes", "ratio")]
    for (net, way), by_seed in found.items():
        results = list(by_seed.values())
        lines.append(
            (
                net,
                WAYS[way].title,
                str(len(results)),
                spread([r.dense_error for r in results]),
                spread([r.error for r in results]),
                f"{mean(r.error - r.dense_error for r in results):+.2f}",
                spread([r.bytes for r in results], 0),
                spread([r.ratio for r in results], 1) + "x",
            )
        )
        lines.append((net, f"wanted: {WAYS[way].wanted[net]}", "", "", "", "", "", ""))
    return aligned(lines)


def layers(result: Result) -> str:
    """The paper's table: bits of a weight and of its index, before and after coding."""
    head = ("tensor", "density %", "weight bits", "index bits", "table bytes", "bytes", "ratio")
    lines = [head]
    for x in result.lines:
        if x.name.endswith("weight"):
            lines.append(
                (
                    x.name,
                    f"{100 * x.kept / x.weights:.1f}",
                    f"{8 * x.values / max(1, x.kept):.2f}",
                    f"{8 * x.indices / max(1, x.kept):.2f}",
                    str(x.tables),
                    str(x.bytes),
                    f"{x.dense / max(1, x.bytes):.1f}x",
                )
            )
    biases = [x for x in result.lines if x.name.endswith("bias")]
    rest = [x for x in result.lines if x.name in ("header", "other")]
    stored, dense = sum(x.bytes for x in biases), sum(x.dense for x in biases)
    lines.append(("biases", "", "", "", "", str(stored), f"{dense / stored:.1f}x"))
    lines.append(("header", "", "", "", "", str(sum(x.bytes for x in rest)), ""))
    lines.append(("whole file", "", "", "", "", str(result.bytes), f"{result.ratio:.1f}x"))
    return aligned(lines)


def page(found: dict[tuple[str, str], dict[int, Result]]) -> str:
    parts = [
        "# Deep Compression of LeNet-300-100 and LeNet-5 on MNIST\n\n"
        "Bytes are the length of the whole `.secz` file: weights, indices, codebooks, biases,\n"
        "names, shapes and checksum; a kilobyte is 1,000 bytes. The dense network is 4 bytes a\n"
        "parameter. A tenth of the training images is held out; settings were chosen on them and\n"
        "the test set was read once per model, at the end. One standard error of an error rate\n"
        "of 1.7 % on 10,000 images is 0.13 points.\n\n"
        f"{summary(found)}\n\n"
        "Paper: Han, Mao & Dally 2016, arXiv:1510.00149, table 1: LeNet-300-100 from 1070 to\n"
        "27 KB (40x) at 1.58 %, dense 1.64 %; LeNet-5 from 1720 to 44 KB (39x) at 0.74 %, dense\n"
        "0.80 %. The paper's sizes leave out biases and Huffman tables; ours hold everything.\n\n"
        "**Paper's pipeline**: cut by magnitude to the paper's densities, retrain, 64 shared\n"
        "values a layer (LeNet-5: 256 in convolutions, 32 in linear layers), linear start, train\n"
        "the values, gaps of 5 bits, Huffman codes. **Smaller**: cut in two rounds with all\n"
        "layers competing, 16 values a layer by dynamic programming, trained, in half precision;\n"
        "biases of 6 bits; the context coder.\n"
    ]
    for (net, way), by_seed in found.items():
        first = min(by_seed)
        parts.append(
            f"## {net}, {WAYS[way].title}, seed {first}\n\n"
            "Bits for each weight that stays, after coding"
            + (
                " (before: codes of 6 or 8 and 5 bits, gaps of 5).\n\n"
                if way == "paper"
                else ".\n\n"
            )
            + f"{layers(by_seed[first])}\n"
        )
    parts.append(f"Made by `{COMMAND}`.\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/deep-compression"))
    parser.add_argument("--nets", nargs="+", default=["lenet300", "lenet5"], choices=list(DENSE))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, default=Path("docs/results/deep-compression.md"))
    args = parser.parse_args()
    found = {
        (net, way): {s: result(net, way, s, args.data_dir, args.out) for s in args.seeds}
        for net in args.nets
        for way in args.ways
    }
    text = page(found)
    write_whole(args.page, text)
    print(text)


if __name__ == "__main__":
    main()
