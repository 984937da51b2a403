"""The fine-grained methods on both LeNets of their papers, over seeds.

    python bench/fine_grained.py --data-dir DATA --out runs/fine-grained
    python bench/fine_grained.py --data-dir DATA --only dns-lenet5 --seeds 0

Every job leaves one JSON file in the output folder; what is there is not done again, and a
training that was killed goes on from its last epoch. Writes docs/results/fine-grained.md.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fine_grained_page import page
from torch import nn
from torch.nn import functional as F

from secateurs.core.cut import score
from secateurs.criteria.curvature import obd as saliency
from secateurs.data.load import Data, load
from secateurs.evidence.recursion import recursion
from secateurs.evidence.weights import weights
from secateurs.granularity.grains import elements
from secateurs.measure.accuracy import evaluate
from secateurs.measure.perlayer import layer_rows
from secateurs.measure.report import write_whole
from secateurs.methods.dns import dns
from secateurs.methods.han import han
from secateurs.methods.magnitude import magnitude
from secateurs.methods.obd import obd
from secateurs.methods.task import Pruned, Target, Task
from secateurs.models.create import create
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

_SGD = Trainer(nesterov=False, weight_decay=5e-4)
"""Momentum 0.9, cosine to zero; batches of 64, as in the papers' recipe."""
_LAST = replace(_SGD, channels_last=True)
"""A convolution of 20 or 50 channels takes half the time when channels lie innermost."""
DENSE = {"lenet300": replace(_SGD, epochs=20, lr=0.05), "lenet5": replace(_LAST, epochs=8, lr=0.03)}
HAN = {
    "lenet300": replace(_SGD, epochs=6, lr=0.02, weight_decay=1e-4),
    "lenet5": replace(_SGD, epochs=2, lr=0.02, weight_decay=1e-4),
}
DNS = {
    "lenet300": replace(_SGD, epochs=15, lr=0.05, weight_decay=1e-4),
    "lenet5": replace(_SGD, epochs=10, lr=0.02, weight_decay=1e-4),
}
"""Fewer steps than the paper: 13,000 for its 25,000, and 8,600 for its 16,000."""

KEPT = {
    "lenet300": ("fc1.weight=0.0184", "fc2.weight=0.0184", "fc3.weight=0.049"),
    "lenet5": ("conv1.weight=0.144", "conv2.weight=0.031", "fc1.weight=0.0073", "fc2.weight=0.043"),
}
"""Densities of the models that the authors of dynamic network surgery released."""

REMOVED = (0.3, 0.5, 0.7, 0.9)


def data_of(seed: int, data_dir: str | None) -> Data:
    """55,000 images to learn from, 5,000 to choose settings by, the test images for the end."""
    return load("mnist", data_dir=data_dir, batch_size=64, valid_fraction=1 / 12, seed=seed)


def dense(net: str, data: Data, seed: int, out: Path) -> nn.Module:
    """Train the network a seed stands for, or read it back."""
    torch.manual_seed(seed)
    model = create(net, classes=10, in_channels=1)
    Stages(data, out / f"{net}-{seed}").fit(model, "dense", replace(DENSE[net], seed=seed))
    return model


def task_of(model: nn.Module, data: Data, seed: int, folder: Path, how: Trainer) -> Task:
    train = Recovery(Stages(data, folder), "part", replace(how, seed=seed))
    return Task(
        model,
        data.example,
        train=train,
        batches=lambda: data.batches(40),
        steps=how.epochs * len(data.train),
        folder=folder,
        seed=seed,
        say=lambda line: print(f"    {line}", flush=True),
    )


def measured(model: nn.Module, pruned: Pruned, data: Data) -> dict[str, Any]:
    """Errors in %, and what is left of every layer."""
    rows = layer_rows(pruned.model, "pruned")
    kept = sum(r.nonzeros + r.nonzero_biases for r in rows)
    total = sum(r.weights + r.biases for r in rows)
    return {
        "dense_valid": wrong(model, data.valid),
        "dense_test": wrong(model, data.test),
        "valid": wrong(pruned.model, data.valid),
        "test": wrong(pruned.model, data.test),
        "kept": kept,
        "total": total,
        "layers": {r.name.removesuffix(".weight"): 100 * r.density for r in rows},
        "dead_units": {r.name.removesuffix(".weight"): [r.dead_units, r.units] for r in rows},
    }


def wrong(model: nn.Module, batches: Any) -> float:
    return 100 * (1 - evaluate(model, batches).value)


def obd_job(net: str, data: Data, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    """Rise of the training loss without retraining, ranked by saliency and by magnitude."""
    model = dense(net, data, seed, out)
    task = task_of(model, data, seed, folder, DENSE[net])
    task = replace(task, train=None, batches=lambda: data.batches(200))
    h = recursion(model, data.batches(200), F.cross_entropy)
    s = score(elements(model), saliency, weight=weights(model), curvature=h)
    s = torch.cat(list(s.values())).sort().values
    before = evaluate(model, data.train).loss
    points = []
    for removed in REMOVED:
        target = Target("density", 1 - removed)
        ours = obd(task, target, rounds=1).model
        theirs = magnitude(task, target, ranking="global").model
        points.append(
            {
                "removed": removed,
                "obd": evaluate(ours, data.train).loss - before,
                "magnitude": evaluate(theirs, data.train).loss - before,
                "predicted": float(s[: round(removed * len(s))].sum()),
            }
        )
    return {"loss": before, "points": points}


def han_job(net: str, data: Data, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    """A twelfth of the weights, shared among the layers by the sensitivity scan."""
    model = dense(net, data, seed, out)
    task = task_of(model, data, seed, folder, HAN[net])
    return measured(model, han(task, Target("density", 1 / 12.2)), data)


def dns_job(net: str, data: Data, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    """The densities of the released models, by surgery."""
    model = dense(net, data, seed, out)
    task = task_of(model, data, seed, folder, DNS[net])
    return measured(model, dns(task, Target("density", 0.01), densities=KEPT[net]), data)


def static_job(net: str, data: Data, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    """The same densities and training, but the mask is cut once and never changes."""
    model = dense(net, data, seed, out)
    task = task_of(model, data, seed, folder, DNS[net])
    return measured(model, magnitude(task, Target("density", 0.01), densities=KEPT[net]), data)


Job = Callable[[str, Data, int, Path, Path], dict[str, Any]]
JOBS: dict[str, tuple[Job, str]] = {
    "obd-lenet300": (obd_job, "lenet300"),
    "han-lenet300": (han_job, "lenet300"),
    "dns-lenet300": (dns_job, "lenet300"),
    "static-lenet300": (static_job, "lenet300"),
    "han-lenet5": (han_job, "lenet5"),
    "dns-lenet5": (dns_job, "lenet5"),
    "static-lenet5": (static_job, "lenet5"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-grained"))
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=Path, default=Path("docs/results/fine-grained.md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.only:
        job, net = JOBS[name]
        for seed in args.seeds:
            place = args.out / f"{name}-{seed}.json"
            if place.exists():
                continue
            print(f"{name}, seed {seed}", flush=True)
            start = time.process_time()
            data = data_of(seed, args.data_dir)
            found = job(net, data, seed, args.out, args.out / f"{name}-{seed}")
            found["cpu_seconds"] = time.process_time() - start
            write_whole(place, json.dumps(found, indent=1))
            print(f"    {json.dumps(found)}", flush=True)
    results = {
        name: {
            int(p.stem.rpartition("-")[2]): json.loads(p.read_text())
            for p in sorted(args.out.glob(f"{name}-*.json"))
        }
        for name in JOBS
    }
    write_whole(args.page, page(results))


if __name__ == "__main__":
    main()
