"""Every method that removes channels, kernels or fibres, beside its controls, over seeds.

    python bench/channels.py digits mnist --data-dir DATA --out runs/channels
    python bench/channels.py cifar10 --data-dir DATA --out runs/channels

Each arm cuts the same trained network, without training and with a short recovery after. Every
cell leaves a JSON file and its model in the output folder; what is there is not done again.
Writes docs/results/channels.md after every study; `--collect` writes it from what is there,
and `--time` times the models of one seed side by side first.
"""

import argparse
import copy
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from channels_page import page

from secateurs.measure.accuracy import evaluate
from secateurs.measure.compute import macs
from secateurs.measure.latency import latency, speedups
from secateurs.measure.report import write_whole
from secateurs.measure.size import parameters
from secateurs.methods.task import Repair, Target
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.runs.job import prune
from secateurs.runs.prepare import Job, build, prepare
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.stages import Stages


@dataclass(frozen=True)
class Study:
    """One network and data set, and how much of its MACs stays."""

    model: str
    data: str
    dense: Trainer
    recover: Trainer
    batch_size: int
    macs: float
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Method → options that this network needs."""
    images: int | None = None
    """How many training images to learn from; all when None."""


STUDIES = {
    "digits": Study(
        "digits_cnn",
        "digits",
        Trainer(epochs=20, lr=0.1, schedule="one_cycle"),
        replace(FINETUNE, epochs=4, lr=0.02),
        64,
        0.5,
    ),
    "mnist": Study(
        "lenet5",
        "mnist",
        Trainer(epochs=3, lr=0.03, schedule="one_cycle"),
        replace(FINETUNE, epochs=1, lr=0.01),
        128,
        0.5,
        {"hrank": {"exclude": ("fc1",)}, "chip": {"exclude": ("fc1",)}},
        images=18_000,
    ),
    "cifar10": Study(
        "resnet20",
        "cifar10",
        Trainer(epochs=20, lr=0.1, schedule="one_cycle", precision="auto", channels_last="auto"),
        replace(FINETUNE, epochs=4, lr=0.02, precision="auto", channels_last="auto"),
        128,
        0.6,
    ),
}


@dataclass(frozen=True)
class Arm:
    """One way to prune."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    repair: Repair = "bn"
    density: float | None = None
    """Of the units, for methods that mask; the study's MACs when None."""
    trained: bool | None = None
    """True: it is nothing without training; False: the point is what it is without."""


_CHANNELS = {"granularity": "out_channel"}
ARMS = {
    "random": Arm("random", _CHANNELS),
    "l1": Arm("magnitude", _CHANNELS),
    "l2": Arm("magnitude", {**_CHANNELS, "norm": "l2"}),
    "l2, no repair": Arm("magnitude", {**_CHANNELS, "norm": "l2"}, "none", trained=False),
    "l2, least squares": Arm("magnitude", {**_CHANNELS, "norm": "l2"}, "least-squares"),
    "random, least squares": Arm("random", _CHANNELS, "least-squares", trained=False),
    "l1, all layers together": Arm("magnitude", {**_CHANNELS, "ranking": "global"}),
    "FPGM": Arm("fpgm"),
    "FPGM-mix": Arm("fpgm", {"mix": 0.25}),
    "soft filters, l2": Arm("soft_filter", trained=True),
    "soft filters, FPGM": Arm("soft_filter", {"criterion": "fpgm"}, trained=True),
    "kernels (0.5), then filters": Arm("kernels_first"),
    "kernels (adaptive), then filters": Arm("kernels_first", {"budget": "adaptive"}),
    "NISP": Arm("nisp"),
    "slimming": Arm("slimming", {"strength": 3e-3}, trained=True),
    "HRank": Arm("hrank"),
    "CHIP": Arm("chip"),
    "group Taylor": Arm("group_taylor"),
    "group Fisher": Arm("group_fisher"),
    "isomorphic": Arm("isomorphic"),
    "DepGraph": Arm("depgraph", trained=True),
    "GReg-1": Arm("greg", trained=True),
    "GReg-2": Arm("greg", {"variant": "greg2"}, trained=True),
    "ResRep": Arm("resrep", trained=True),
    "LASSO + least squares": Arm("lasso_channels"),
    "3C": Arm("three_c"),
    "reduce and reuse": Arm("reduce_reuse"),
    "inbound": Arm("inbound", density=0.5),
    "brain damage": Arm("brain_damage", density=0.5, trained=True),
    "DCP": Arm("dcp"),
    "uniform width from scratch": Arm("uniform_width", trained=True),
    "scratch-E, widths of l1": Arm("scratch", {"of": "magnitude"}, trained=True),
    "scratch-B, widths of l1": Arm(
        "scratch", {"of": "magnitude", "budget": "compute"}, trained=True
    ),
}


def job_of(name: str, seed: int, out: Path, data_dir: str | None) -> Job:
    """Train the network that a seed stands for, or read it back."""
    study = STUDIES[name]
    recipe = Recipe(
        study.model,
        study.data,
        (),
        dense=replace(study.dense, seed=seed),
        data_dir=data_dir,
        batch_size=study.batch_size,
        seed=seed,
    )
    job = prepare(recipe)
    if study.images is not None:
        train = copy.copy(job.data.train)
        train.images, train.labels = train.images[: study.images], train.labels[: study.images]
        job = replace(job, data=replace(job.data, train=train))
    stages = Stages(job.data, out / name / f"seed-{seed}")
    stages.fit(job.model, "dense", replace(study.dense, seed=seed))
    return job


def cut_of(study: Study, arm: Arm, epochs: int, seed: int) -> Cut:
    """Describe what one arm does."""
    options = {**arm.options, **study.own.get(arm.method, {})}
    recover = replace(study.recover, epochs=epochs, seed=seed)
    if arm.method in ("scratch", "uniform_width"):
        recover = replace(study.dense, seed=seed)
        options |= {"epochs": recover.epochs} if arm.method == "scratch" else {}
    target = Target("macs", study.macs) if arm.density is None else Target("density", arm.density)
    return Cut(arm.method, target, options, recover, arm.repair)


def phases(arm: Arm, study: Study) -> tuple[int, ...]:
    """List the epochs of recovery with which an arm is run."""
    full = study.recover.epochs
    return (0, full) if arm.trained is None else (full,) if arm.trained else (0,)


def place_of(out: Path, study: str, seed: int, arm: str, epochs: int) -> Path:
    """Say where a cell's record is; its model has the same stem."""
    words = "".join(c if c.isalnum() else "-" for c in arm)
    return out / study / f"seed-{seed}" / f"{words}-{epochs}.json"


def cell(job: Job, study: str, name: str, epochs: int, out: Path) -> dict[str, Any]:
    """Return what one arm gives on one seed, done or read back."""
    arm, seed = ARMS[name], job.recipe.seed
    place = place_of(out, study, seed, name, epochs)
    if place.exists():
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    stages = Stages(job.data, place.with_suffix(""))
    pruned = prune(job, cut_of(STUDIES[study], arm, epochs, seed), stages)
    assert job.data.test is not None
    record = {
        "accuracy": evaluate(pruned.model, job.data.test).value,
        "macs": macs(pruned.model, job.data.example) / macs(job.model, job.data.example),
        "parameters": parameters(pruned.model) / parameters(job.model),
        "density": pruned.mask.density,
        "proof": pruned.compacted.proof.difference if pruned.compacted else None,
        "notes": list(pruned.notes),
    }
    save_checkpoint(place.with_name(place.stem + "-model"), pruned.model)
    write_whole(place, json.dumps(record, indent=1) + "\n")
    return record


def run(study: str, seeds: Iterable[int], only: list[str], out: Path, data_dir: str | None) -> None:
    """Do all cells of a study, seed by seed."""
    for seed in seeds:
        job = job_of(study, seed, out, data_dir)
        assert job.data.test is not None
        dense = place_of(out, study, seed, "dense", 0)
        if not dense.exists():
            value = evaluate(job.model, job.data.test).value
            write_whole(dense, json.dumps({"accuracy": value}) + "\n")
        for name in only:
            for epochs in phases(ARMS[name], STUDIES[study]):
                found = cell(job, study, name, epochs, out)
                line = f"{study} seed {seed}  {name}, {epochs} epochs"
                print(f"{line}: {100 * found['accuracy']:.2f} %", flush=True)


def time_models(study: str, seed: int, out: Path, data_dir: str | None) -> None:
    """Time the recovered models of one seed side by side, each in pairs with the dense one."""
    job = job_of(study, seed, out, data_dir)
    models = {"dense": job.model}
    for name, arm in ARMS.items():
        stem = place_of(out, study, seed, name, phases(arm, STUDIES[study])[-1])
        if stem.exists():
            fresh = build(job.recipe, job.data)
            models[name] = load_checkpoint(stem.with_name(stem.stem + "-model"), fresh)
    images = next(iter(job.data.train))[0][:64]
    timed = latency(models, images, threads=1, rounds=30)
    faster = speedups(timed, "dense")
    record = {
        name: {"seconds": timed[name].median_s, "verdict": faster[name].verdict} for name in models
    }
    write_whole(out / study / "latency.json", json.dumps(record, indent=1) + "\n")


def collect(study: str, seeds: Iterable[int], out: Path) -> dict[str, dict[int, list[Any]]]:
    """Read what is there: arm → epochs → records over seeds; the dense network comes first."""
    found: dict[str, dict[int, list[Any]]] = {}
    wanted = {"dense": (0,), **{n: phases(a, STUDIES[study]) for n, a in ARMS.items()}}
    for name, epochs in wanted.items():
        for n in epochs:
            places = [place_of(out, study, seed, name, n) for seed in seeds]
            if records := [json.loads(p.read_text()) for p in places if p.exists()]:
                found.setdefault(name, {})[n] = records
    return found


def words(about: str, page: str) -> argparse.ArgumentParser:
    """Return a parser of what this benchmark and bench/repair.py both take."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("studies", nargs="*", choices=list(STUDIES), default=["digits", "mnist"])
    parser.add_argument("--out", type=Path, default=Path("runs/channels"))
    parser.add_argument("--data-dir", default=os.environ.get("SECATEURS_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, default=Path("docs/results") / page)
    return parser


def main() -> None:
    parser = words(__doc__, "channels.md")
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--collect", action="store_true", help="compute nothing")
    parser.add_argument("--time", action="store_true", help="time the models of the first seed")
    args = parser.parse_args()
    for study in args.studies:
        if args.time:
            time_models(study, args.seeds[0], args.out, args.data_dir)
        elif not args.collect:
            run(study, args.seeds, args.only, args.out, args.data_dir)
        results = {s: collect(s, args.seeds, args.out) for s in STUDIES}
        timed = {
            s: json.loads(place.read_text())
            for s in STUDIES
            if (place := args.out / s / "latency.json").exists()
        }
        write_whole(args.page, page(results, timed))


if __name__ == "__main__":
    main()
