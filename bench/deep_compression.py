"""Deep Compression of both LeNets and ResNet-20: the paper's pipeline, and past it, over seeds.

    python bench/deep_compression.py --data-dir DATA --out runs/deep-compression
    python bench/deep_compression.py --data-dir DATA --only paper-lenet300 --seeds 0

Every job leaves its file and one of JSON in the output folder; what is there is not done
again, and a training that was killed goes on from its last epoch. Bytes are the length of
the whole file; errors are of the network that was read back from it. Writes its part of
docs/results/deep-compression.md.
"""

import argparse
import copy
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from deep_compression_page import page
from fine_grained_jobs import Place, task_of, wrong
from torch import nn

from secateurs.data.load import Data, load
from secateurs.measure.report import write_whole
from secateurs.methods.deep_compression import deep_compression
from secateurs.methods.task import Target
from secateurs.models.create import create
from secateurs.realise.coding.container import read, write
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Stages

COMMAND = "python bench/deep_compression.py --data-dir DATA --out runs/deep-compression"
_SGD = Trainer(nesterov=False, weight_decay=5e-4)
"""Momentum 0.9, cosine to zero."""
_LAST = replace(_SGD, channels_last=True)
_CIFAR = Trainer(channels_last=True)
DENSE = {
    "lenet300": replace(_SGD, epochs=20, lr=0.05),
    "lenet5": replace(_LAST, epochs=6, lr=0.03),
    "resnet20": replace(_CIFAR, epochs=8, lr=0.2, schedule="one_cycle"),
}


@dataclass(frozen=True)
class Job:
    """How a network is made small, and what is claimed or wanted of it."""

    net: str
    density: float
    recover: Trainer
    options: dict[str, Any]
    wanted: tuple[int, float]
    """Bytes and error in %."""
    batch: int = 64
    over_dense: bool = False
    """Whether the error is what may be lost to the dense network, in points."""


PAPER = {"rounds": 2, "biases": "float16"}
PAST = {
    "pruning": "dns",
    "ranking": "lamp",
    "learn": "weights",
    "codebook": "optimum",
    "biases": "levels",
    "bias_bits": 4,
    "entries": "float16",
    "code": "smallest",
    "bits": 3,
}
JOBS = {
    "paper-lenet300": Job(
        "lenet300",
        0.08,
        replace(_SGD, epochs=10, lr=0.05, weight_decay=1e-4),
        {
            **PAPER,
            "densities": ("fc1.weight=0.0725", "fc2.weight=0.09", "fc3.weight=0.26"),
            "bits": 6,
            "tune": 2,
        },
        (1_066_440 // 40, 1.58),
    ),
    "paper-lenet5": Job(
        "lenet5",
        0.08,
        replace(_LAST, epochs=6, lr=0.03, weight_decay=1e-4),
        {
            **PAPER,
            "rounds": 1,
            "densities": (
                *("conv1.weight=0.66", "conv2.weight=0.12"),
                *("fc1.weight=0.07", "fc2.weight=0.19"),
            ),
            "bits": 5,
            "bits_of": ("conv1.weight=8", "conv2.weight=8"),
            "tune": 2,
        },
        (1_724_320 // 39, 0.74),
    ),
    "past-lenet300": Job(
        "lenet300",
        0.023,
        replace(_SGD, epochs=16, lr=0.1, weight_decay=1e-4),
        {**PAST, "price": 0.02, "tune": 5},
        (5_300, 1.9),
        128,
    ),
    "past-lenet5": Job(
        "lenet5",
        0.057,
        replace(_LAST, epochs=10, lr=0.06, weight_decay=1e-4),
        {**PAST, "channels": 0.3, "price": 0.01, "tune": 3},
        (6_000, 0.9),
        128,
    ),
    "least-lenet5": Job(
        "lenet5",
        0.02,
        replace(_LAST, epochs=8, lr=0.06, weight_decay=1e-4),
        {**PAST, "channels": 0.2, "price": 0.02, "tune": 3},
        (1_400, 0.96),
        128,
    ),
    "past-resnet20": Job(
        "resnet20",
        0.2,
        replace(_CIFAR, epochs=4, lr=0.1),
        {**PAST, "price": 0.005, "bits": 4, "tune": 2, "biases": "float16"},
        (60_000, 1.0),
        128,
        over_dense=True,
    ),
}


def data_of(net: str, seed: int, data_dir: str | None, batch: int = 64) -> Data:
    """5,000 images to choose settings by, the others to learn from, the test images for the end."""
    name, held_out = ("cifar10", 1 / 10) if net == "resnet20" else ("mnist", 1 / 12)
    return load(name, data_dir=data_dir, batch_size=batch, valid_fraction=held_out, seed=seed)


def dense(net: str, seed: int, data_dir: str | None, out: Path) -> nn.Module:
    """Train the network a seed stands for, or read it back."""
    torch.manual_seed(seed)
    colour = net == "resnet20"
    data = data_of(net, seed, data_dir, 128 if colour else 64)
    model = create(net, classes=10, in_channels=3 if colour else 1)
    stages = Stages(data, out / f"{net}-{seed}")
    stages.fit(model, "dense", replace(DENSE[net], seed=seed))
    return model


def result(name: str, seed: int, data_dir: str | None, out: Path) -> dict[str, Any]:
    """Do a job, or read what it left."""
    place, file = (out / f"{name}-{seed}{end}" for end in (".json", ".secz"))
    if place.exists():
        return dict(json.loads(place.read_text()))
    job = JOBS[name]
    data = data_of(job.net, seed, data_dir, job.batch)
    model = dense(job.net, seed, data_dir, out)
    print(f"{name}, seed {seed}", flush=True)
    start = time.process_time()
    task = task_of(model, data, seed, Place(out, out / f"{name}-{seed}"), job.recover)
    pruned = deep_compression(task, Target("density", job.density), **job.options)
    state = pruned.model.state_dict()
    write(file, {n: pruned.coded.get(n, t) for n, t in state.items()}, **pruned.code)
    again = copy.deepcopy(pruned.model)
    again.load_state_dict(read(file).state())
    found = {
        "dense_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "bytes": file.stat().st_size,
        "dense_valid": wrong(model, data.valid),
        "valid": wrong(again, data.valid),
        "dense_test": wrong(model, data.test),
        "test": wrong(again, data.test),
        "cpu_s": time.process_time() - start,
    }
    write_whole(place, json.dumps(found, indent=1))
    print(f"    {found['bytes']} bytes, {found['valid']:.2f} % of the held-out images", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/deep-compression"))
    parser.add_argument("--only", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, default=Path("docs/results/deep-compression.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name in args.only:
            result(name, seed, args.data_dir, args.out)
    write_whole(args.page, page(JOBS, args.out, COMMAND))


if __name__ == "__main__":
    main()
