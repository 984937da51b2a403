"""The claims of bench/channel_claims.py, each on one seed of a small network."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from channel_claims_nets import CIFAR, DEMO, MNIST, Lab
from torch import nn

from secateurs.core.mask import Mask
from secateurs.methods.brain_damage import brain_damage
from secateurs.methods.dcp import dcp
from secateurs.methods.fpgm import fpgm
from secateurs.methods.kernels_first import kernels_first
from secateurs.methods.lasso_channels import lasso_channels
from secateurs.methods.magnitude import magnitude
from secateurs.methods.nisp import nisp
from secateurs.methods.random_units import random_units
from secateurs.methods.reduce_reuse import reduce_reuse
from secateurs.methods.scratch import from_nothing, scratch
from secateurs.methods.slimming import slimming
from secateurs.methods.task import Pruned, Target, Task, Train

Numbers = Mapping[str, float]
"""What was measured → percent; the words are the rows of the page."""

CHANNELS: dict[str, Any] = {"granularity": "out_channel"}
HALF, THREE_QUARTERS = Target("density", 0.5), Target("density", 0.75)
LAST = ("conv4.weight",)
"""Of `Tiny`, what stays whole where the claim is about the other layers."""


def by_norm(task: Task, target: Target, norm: str = "l1", **options: Any) -> Pruned:
    """Remove the channels of least norm."""
    return magnitude(task, target, norm=norm, **CHANNELS, **options)


def by_chance(lab: Lab, task: Task, target: Target, draws: int, **options: Any) -> float:
    """Return what is right with channels gone that were drawn by chance, mean of some draws."""
    tasks = (replace(task, seed=100 * lab.seed + i) for i in range(draws))
    found = (random_units(t, target, **CHANNELS, **options).model for t in tasks)
    return mean(lab.right(model) for model in found)


def crosses(lab: Lab) -> Numbers:
    """The authors' demo: a cross of taps, then taps that are learned."""
    model, tune = lab.dense(), replace(DEMO, epochs=1, lr=1e-3)
    fixed = {"target": Target("density", 0.36), "variant": "fixed"}
    masked = brain_damage(lab.task(model), **fixed).model
    outer = copy.deepcopy(masked)
    for name, parameter in outer.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    lab.fit(outer, "outer", tune)
    whole = brain_damage(lab.task(model, "cross", tune), **fixed)
    recover = replace(DEMO, epochs=2, schedule="cosine")
    learned = brain_damage(lab.task(model, "learned", recover), Target("density", 0.25))
    return {
        "dense": lab.right(model),
        "masked by a cross": lab.right(masked),
        "then the linear layers tuned": lab.right(outer),
        "then all tuned, zeros held": lab.right(whole.model),
        "taps learned": lab.right(learned.model),
        "taps learned, density of the fuller convolution": fullest(learned.mask),
    }


def fullest(mask: Mask) -> float:
    """Return the largest density of any masked parameter, in %."""
    return 100 * max(float(keep.float().mean()) for keep in mask.values())


def reuse(lab: Lab) -> Numbers:
    """Half of the second convolution's filters go."""
    model, rest = lab.dense(), ("conv1.weight", "fc1.weight")
    tune = replace(MNIST, epochs=1, lr=0.01)
    cut = reduce_reuse(lab.task(model), HALF, exclude=rest)
    tuned = reduce_reuse(lab.task(model, "reuse", tune), HALF, exclude=rest)
    reduced = reduce_reuse(lab.task(model), HALF, reuse=False, exclude=rest)
    control = random_units(lab.task(model, "random", tune), HALF, exclude=rest, **CHANNELS)
    return {
        "dense": lab.right(model),
        "reduced": lab.right(reduced.model),
        "reused": lab.right(cut.model),
        "reused, tuned": lab.right(tuned.model),
        "random": by_chance(lab, lab.task(model), HALF, 5, exclude=rest),
        "random, tuned": lab.right(control.model),
    }


def neurons(lab: Lab) -> Numbers:
    """Half of the hidden neurons go, without repair."""
    model = lab.dense()
    raw = lab.task(model, repair="none")
    tuned = nisp(lab.task(model, "nisp", replace(MNIST, epochs=1, channels_last=False)), HALF)
    return {
        "dense": lab.right(model),
        "NISP": lab.right(nisp(raw, HALF).model),
        "NISP from the outputs": lab.right(nisp(raw, HALF, final="outputs").model),
        "magnitude": lab.right(by_norm(raw, HALF).model),
        "random": by_chance(lab, raw, HALF, 5),
        "NISP, one epoch": lab.right(tuned.model),
    }


def slim(lab: Lab) -> Numbers:
    """Train LeNet-5 under the penalty, cut half of all channels, tune."""
    model = lab.dense()
    how = replace(MNIST, epochs=2)
    pruned = slimming(lab.task(model, "slim", how), HALF, strength=1e-3)
    return {"dense": lab.right(model), "slimmed": lab.right(pruned.model)}


@dataclass
class Watched:
    """A `Train` without the last part, which looks at the scales after the others."""

    train: Train
    small: float = 0.0
    """Share of the batch norms' scales below 0.01, in %."""

    def __call__(self, model: nn.Module, *, name: str, **rest: Any) -> None:
        if name != "recover":
            self.train(model, name=name, **rest)
            norms = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
            self.small = 100 * float((torch.cat(norms).abs() < 0.01).float().mean())


def scales(lab: Lab) -> Numbers:
    """What the penalty does to scales, and to a cut that nothing repairs."""
    model, found = lab.dense(), dict[str, float]()
    for word, strength in (("plain", 0.0), ("penalised", 3e-3)):
        task = lab.task(model, word, replace(CIFAR, lr=0.1), repair="none")
        assert task.train is not None
        train = Watched(task.train)
        pruned = slimming(replace(task, train=train), HALF, strength=strength, exclude=LAST)
        found |= {
            f"{word}, scales below 0.01": train.small,
            f"{word}, cut": lab.right(pruned.model),
        }
    return found


def discrimination(lab: Lab) -> Numbers:
    """Three tenths of the channels go, chosen with ever more weight on the auxiliary losses."""
    task, target = lab.task(lab.dense(), repair="none"), Target("density", 0.7)
    few = replace(task, batches=lambda: lab.data.batches(8))
    found = {
        f"λ = {w:g}": lab.right(dcp(few, target, weight=w, rounds=3).model) for w in (0, 0.1, 1)
    }
    return {**found, "l1, nothing refitted": lab.right(by_norm(task, target).model)}


def stages(lab: Lab) -> Numbers:
    """Half of the parameters go: as kernels, as filters, or as both in turn."""
    task = lab.task(lab.dense())
    whole, rest = Target("density", 1.0), Target("params", 0.5 / 0.7)
    ways = {
        "kernels alone": kernels_first(task, whole, kernels=0.5, rounds=1),
        "kernels, then filters": kernels_first(task, rest, kernels=0.7, rounds=1),
        "filters alone": by_norm(task, Target("params", 0.5)),
    }
    return {name: lab.right(pruned.model) for name, pruned in ways.items()}


def one_shot(lab: Lab) -> Numbers:
    """A quarter of the channels goes, by seven criteria, without training."""
    model, found = lab.dense(), dict[str, float]()
    for repair, word in (("none", "nothing repaired"), ("bn", "batch norms repaired")):
        task = lab.task(model, repair=repair)
        chance = by_chance(lab, task, THREE_QUARTERS, 5, exclude=LAST)
        found |= {f"{name}, {word}": lab.right(p.model) for name, p in cuts(task).items()}
        found[f"random, {word}"] = chance
    return found


def cuts(task: Task, target: Target = THREE_QUARTERS) -> dict[str, Pruned]:
    """Cut by each of the criteria that need nothing but the network and a few inputs."""
    return {
        "l1": by_norm(task, target, exclude=LAST),
        "l2": by_norm(task, target, "l2", exclude=LAST),
        "FPGM": fpgm(task, target, exclude=LAST),
        "scales": slimming(task, target, ranking="uniform", exclude=LAST),
        "NISP": nisp(task, target, exclude=LAST),
        "variance": reduce_reuse(task, target, reuse=False, exclude=LAST),
    }


def rebuilt(lab: Lab) -> Numbers:
    """Half of the channels goes; what stays is fitted, then trained for an epoch."""
    model, epoch, found = lab.dense(), replace(CIFAR, epochs=1, lr=0.05), dict[str, float]()
    ways: dict[str, Callable[[Task], Pruned]] = {
        "LASSO": lambda task: lasso_channels(task, HALF, exclude=LAST),
        "l2": lambda task: by_norm(task, HALF, "l2", exclude=LAST),
        "random": lambda task: random_units(task, HALF, exclude=LAST, **CHANNELS),
        "NISP": lambda task: nisp(task, HALF, exclude=LAST),
        "FPGM": lambda task: fpgm(task, HALF, exclude=LAST),
    }
    for name, way in ways.items():
        fitted = way(lab.task(model, repair="least-squares"))
        found[f"{name}, fitted"] = lab.right(fitted.model)
        tuned = way(lab.task(model, name, epoch, repair="least-squares"))
        found[f"{name}, one epoch"] = lab.right(tuned.model)
    raw = ways["l2"](lab.task(model, repair="none")).model
    anew = from_nothing(raw, seed=lab.seed)
    lab.fit(anew, "anew", CIFAR)
    return {**found, "l2, neither": lab.right(raw), "from scratch, four epochs": lab.right(anew)}


def controls(lab: Lab) -> Numbers:
    """Half of every layer goes by l1; tuned gently or boldly, or trained from nothing."""
    model, quarter = lab.dense(), replace(CIFAR, epochs=1)
    gentle = replace(quarter, lr=1e-3, schedule="constant")
    bold = replace(quarter, lr=0.1)
    epochs = lab.settings(CIFAR).epochs
    anew = {"scratch-E": "epochs", "scratch-B": "compute"}
    return {
        "dense": lab.right(model),
        "tuned at 0.001": lab.right(by_norm(lab.task(model, "gentle", gentle), HALF).model),
        "tuned at 0.1": lab.right(by_norm(lab.task(model, "bold", bold), HALF).model),
        **{
            name: lab.right(
                scratch(
                    lab.task(model, name, CIFAR),
                    HALF,
                    budget=budget,
                    epochs=epochs,
                ).model
            )
            for name, budget in anew.items()
        },
    }
