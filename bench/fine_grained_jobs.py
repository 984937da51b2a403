"""The jobs of bench/fine_grained.py: one network, one method, one seed each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
from secateurs.methods.dns import dns
from secateurs.methods.han import han
from secateurs.methods.magnitude import magnitude
from secateurs.methods.obd import obd
from secateurs.methods.strided import strided
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Target, Task
from secateurs.models.create import create
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

_SGD = Trainer(nesterov=False, weight_decay=5e-4)
"""Momentum 0.9, cosine to zero; batches of 64, as in the papers' recipe."""
_LAST = replace(_SGD, channels_last=True)
"""A convolution of 20 or 50 channels takes half the time when channels lie innermost."""
DENSE = {
    "lenet300": replace(_SGD, epochs=20, lr=0.05),
    "lenet5": replace(_LAST, epochs=6, lr=0.03),
    "mlp": replace(_SGD, epochs=20, lr=0.05),
}
HAN = {
    "lenet300": replace(_SGD, epochs=6, lr=0.05),
    "lenet5": replace(_LAST, epochs=2, lr=0.03),
}
"""Of each of two rounds; at the dense network's rate (Renda et al. 2020, arXiv:2003.02389)."""
DNS = {
    "lenet300": replace(_SGD, epochs=15, lr=0.05, weight_decay=1e-4),
    "lenet5": replace(_LAST, epochs=8, lr=0.03, weight_decay=1e-4),
}
"""Fewer steps than the paper: 12,900 for its 25,000, and 6,880 for its 16,000."""

STRIDED = replace(_LAST, epochs=1, lr=0.01)
BASE = replace(_SGD, epochs=20, lr=0.05)
"""Of every baseline alike; those that begin with new weights have no more than this."""

KEPT = {
    "lenet300": ("fc1.weight=0.0184", "fc2.weight=0.0184", "fc3.weight=0.049"),
    "lenet5": ("conv1.weight=0.144", "conv2.weight=0.031", "fc1.weight=0.0073", "fc2.weight=0.043"),
}
"""Densities of the models that the authors of dynamic network surgery released."""

REMOVED = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Place:
    """Where a job keeps what it trains, and how long it may."""

    out: Path
    """Shared by all jobs: the dense networks lie here."""
    folder: Path
    epochs: int | None = None
    """Of any training, at most; None takes what the settings say."""

    def short(self, how: Trainer) -> Trainer:
        return replace(how, epochs=min(how.epochs, self.epochs or how.epochs))


def data_of(net: str, seed: int, data_dir: str | None) -> Data:
    """MNIST: 55,000 images to learn from, 5,000 to choose by; scikit-learn's digits for `mlp`."""
    if net == "mlp":
        return load("digits", batch_size=32, seed=seed)
    return load("mnist", data_dir=data_dir, batch_size=64, valid_fraction=1 / 12, seed=seed)


def mlp() -> nn.Module:
    """LeNet-300-100 for images of 8 x 8 pixels: 50,200 weights."""
    first, second = nn.Linear(64, 300), nn.Linear(300, 100)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(100, 10))


def dense(net: str, data: Data, seed: int, at: Place) -> nn.Module:
    """Train the network a seed stands for, or read it back."""
    torch.manual_seed(seed)
    model = mlp() if net == "mlp" else create(net, classes=10, in_channels=1)
    how = replace(at.short(DENSE[net]), seed=seed)
    Stages(data, at.out / f"{net}-{seed}").fit(model, "dense", how)
    return model


def task_of(model: nn.Module, data: Data, seed: int, at: Place, how: Trainer) -> Task:
    how = replace(at.short(how), seed=seed)
    train = Recovery(Stages(data, at.folder), "part", how)
    return Task(
        model,
        data.example,
        train=train,
        batches=lambda: data.batches(40),
        steps=how.epochs * len(data.train),
        folder=at.folder,
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


def obd_job(net: str, data: Data, seed: int, at: Place) -> dict[str, Any]:
    """Rise of the training loss without retraining, ranked by saliency and by magnitude."""
    model = dense(net, data, seed, at)
    task = task_of(model, data, seed, at, DENSE[net])
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


def han_job(net: str, data: Data, seed: int, at: Place) -> dict[str, Any]:
    """A twelfth of the weights, shared among the layers by the sensitivity scan."""
    model = dense(net, data, seed, at)
    task = task_of(model, data, seed, at, HAN[net])
    return measured(model, han(task, Target("density", 1 / 12.2)), data)


def dns_job(net: str, data: Data, seed: int, at: Place) -> dict[str, Any]:
    """The densities of the released models, by surgery."""
    model = dense(net, data, seed, at)
    task = task_of(model, data, seed, at, DNS[net])
    return measured(model, dns(task, Target("density", 0.01), densities=KEPT[net]), data)


def static_job(net: str, data: Data, seed: int, at: Place) -> dict[str, Any]:
    """The same densities and training, but the mask is cut once and never changes."""
    model = dense(net, data, seed, at)
    task = task_of(model, data, seed, at, DNS[net])
    return measured(model, magnitude(task, Target("density", 0.01), densities=KEPT[net]), data)


def strided_job(net: str, data: Data, seed: int, at: Place) -> dict[str, Any]:
    """Every second position of conv2's kernels, chosen by the filter and by its control."""
    model = dense(net, data, seed, at)
    rest = ("conv1.weight", "fc*")
    found = {}
    for search in ("filter", "best_of"):
        own = replace(at, folder=at.folder / search)
        task = task_of(model, data, seed, own, STRIDED)
        task = replace(task, batches=lambda: data.batches(16))
        half = Target("density", 0.5)
        pruned = strided(task, half, search=search, masks=20, rounds=5, exclude=rest)
        found[search] = measured(model, pruned, data)
    return {**found["filter"], "best_of": found["best_of"]["test"]}


def baseline_job(
    name: str, options: dict[str, Any], net: str, data: Data, seed: int, at: Place
) -> dict[str, Any]:
    """A fiftieth of the weights, by a method's own defaults."""
    model = dense(net, data, seed, at)
    task = task_of(model, data, seed, at, BASE)
    return measured(model, METHODS[name](task, Target("density", 0.02), **options), data)


Job = Callable[[str, Data, int, Place], dict[str, Any]]
JOBS: dict[str, tuple[Job, str]] = {
    "obd-lenet300": (obd_job, "lenet300"),
    "han-lenet300": (han_job, "lenet300"),
    "dns-lenet300": (dns_job, "lenet300"),
    "static-lenet300": (static_job, "lenet300"),
    "han-lenet5": (han_job, "lenet5"),
    "dns-lenet5": (dns_job, "lenet5"),
    "static-lenet5": (static_job, "lenet5"),
    "strided-lenet5": (strided_job, "lenet5"),
}

BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "random, erk": ("random", {"ranking": "erk"}),
    "magnitude": ("magnitude", {}),
    "magnitude, global": ("magnitude", {"ranking": "global"}),
    "gradual": ("gradual", {}),
    "movement": ("movement", {}),
    "movement, global": ("movement", {"ranking": "global"}),
    "soft_threshold": ("soft_threshold", {}),
    "dns": ("dns", {}),
    "progressive": ("progressive", {}),
    "ac_dc": ("ac_dc", {}),
    "lottery": ("lottery", {}),
    "snip": ("snip", {}),
    "grasp": ("grasp", {}),
    "synflow": ("synflow", {}),
    "rigl": ("rigl", {}),
    "rigl, unscaled": ("rigl", {"scaled": False}),
    "set": ("rigl", {"grow": "random"}),
}
"""Row of the table → method and options; from `progressive` on, all begin with new weights."""

JOBS |= {
    f"base-{name.replace(', ', '-')}": (partial(baseline_job, *what), "mlp")
    for name, what in BASELINES.items()
}
