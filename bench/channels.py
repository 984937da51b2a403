"""Every method that removes channels, kernels or fibres, beside its controls, over seeds.

    python bench/channels.py digits mnist --data-dir DATA --out runs/channels
    python bench/channels.py cifar10 --data-dir DATA --out runs/channels --jobs 2

Each arm cuts the same trained network, without training and with a short recovery after; on a
GPU, or with `--full`, CIFAR-10 is trained as long as the papers do. Every
cell leaves a JSON file and its model in the output folder; what is there is not done again, nor
what docs/results/channels.jsonl has (remove its lines to begin anew). Writes that file and
docs/results/channels.md after every study; `--collect` writes them from what is there, and
`--time` times the models of one seed side by side first.
"""

import argparse
import copy
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from channels_page import WHY, WORDS, page
from own_words import own_words

from secateurs.core.errors import PruneError
from secateurs.data.tensors import TensorBatches
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
    shared: bool = False
    """Whether all seeds cut one dense network, the first seed's, and differ in what follows."""


STUDIES: dict[str, Study] = {
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
        Trainer(epochs=16, lr=0.1, schedule="one_cycle", precision="auto", channels_last="auto"),
        replace(FINETUNE, epochs=4, lr=0.05, precision="auto", channels_last="auto"),
        128,
        0.6,
        {"dcp": {"rounds": 2, "lr": 1e-3}, "brain_damage": {"rounds": 2}},
        shared=True,
    ),
}
FULL = "cifar10-full"
STUDIES[FULL] = replace(
    STUDIES["cifar10"],
    dense=replace(STUDIES["cifar10"].dense, epochs=160),
    recover=replace(STUDIES["cifar10"].recover, epochs=40),
    shared=False,
)


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
    "brain damage, sparse": Arm("brain_damage", {"variant": "sparse"}, density=0.5, trained=True),
    "brain damage, fixed": Arm("brain_damage", {"variant": "fixed"}, density=0.5, trained=True),
    "DCP": Arm("dcp"),
    "uniform width from scratch": Arm("uniform_width", trained=True),
    "scratch-E, widths of l1": Arm("scratch", {"of": "magnitude"}, trained=True),
    "scratch-B, widths of l1": Arm(
        "scratch", {"of": "magnitude", "budget": "compute"}, trained=True
    ),
}


def device() -> str:
    """Say where to train: on a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def job_of(name: str, seed: int, out: Path, data_dir: str | None) -> Job:
    """Train the network that a seed stands for, or read it back."""
    study = STUDIES[name]
    first = 0 if study.shared else seed
    recipe = Recipe(
        study.model,
        study.data,
        (),
        dense=replace(study.dense, seed=first),
        data_dir=data_dir,
        batch_size=study.batch_size,
        seed=first,
        device=device(),
    )
    job = prepare(recipe)
    if study.images is not None:
        train = copy.copy(job.data.train)
        train.images, train.labels = train.images[: study.images], train.labels[: study.images]
        job = replace(job, data=replace(job.data, train=train))
    stages = Stages(job.data, out / name / f"seed-{first}")
    stages.fit(job.model, "dense", recipe.dense)
    if seed != first:
        # The same images are held out; what is trained from here on sees the others anew.
        assert isinstance(job.data.train, TensorBatches)
        data = replace(job.data, train=job.data.train.reseeded(seed))
        job = replace(job, recipe=replace(recipe, seed=seed), data=data)
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


def cells_of(study: str) -> dict[str, tuple[int, ...]]:
    """List what is run of a study: arm → epochs of recovery; the dense network comes first."""
    return {"dense": (0,), **{name: phases(arm, STUDIES[study]) for name, arm in ARMS.items()}}


def place_of(out: Path, study: str, seed: int, arm: str, epochs: int) -> Path:
    """Say where a cell's record is; its model has the same stem."""
    words = "".join(c if c.isalnum() else "-" for c in arm)
    return out / study / f"seed-{seed}" / f"{words}-{epochs}.json"


def cell(job: Job, study: str, name: str, epochs: int, out: Path, dense: float) -> dict[str, Any]:
    """Do and record one arm on one seed, of a dense network so accurate."""
    arm, seed = ARMS[name], job.recipe.seed
    place = place_of(out, study, seed, name, epochs)
    stages = Stages(job.data, place.with_suffix(""))
    pruned = prune(job, cut_of(STUDIES[study], arm, epochs, seed), stages)
    assert job.data.test is not None
    record = {
        "accuracy": evaluate(pruned.model, job.data.test).value,
        "dense": dense,
        "macs": macs(pruned.model, job.example) / macs(job.model, job.example),
        "parameters": parameters(pruned.model) / parameters(job.model),
        "trained": sum(len(history.epochs) for history in stages.histories.values()),
        "computed": sorted({history.precision for history in stages.histories.values()}),
        "density": pruned.mask.density,
        "proof": pruned.compacted.proof.difference if pruned.compacted else None,
        "notes": list(pruned.notes),
    }
    save_checkpoint(place.with_name(place.stem + "-model"), pruned.model)
    write_whole(place, json.dumps(record, indent=1) + "\n")
    return record


def run(
    study: str,
    seeds: Iterable[int],
    only: list[str],
    out: Path,
    data_dir: str | None,
    jobs: int = 1,
) -> None:
    """Do the cells of a study that are not there, so many at once; dense networks come first."""
    todo = []
    for seed in seeds:
        dense = place_of(out, study, seed, "dense", 0)
        cells = [(n, e) for n in only for e in phases(ARMS[n], STUDIES[study])]
        missing = [c for c in cells if not place_of(out, study, seed, *c).exists()]
        if dense.exists() and not missing:
            continue
        job = prepared(study, seed, out, data_dir)
        assert job.data.test is not None
        value = evaluate(job.model, job.data.test).value
        if not dense.exists():
            write_whole(dense, json.dumps({"accuracy": value}) + "\n")
        todo += [(study, seed, *c, out, data_dir, value) for c in missing]
    if jobs == 1:
        for work in todo:
            print(tried(*work), flush=True)
        return
    # Threads of a pool that was used once do not survive a fork.
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), share, (STUDIES, threads)) as pool:
        for done in as_completed([pool.submit(tried, *work) for work in todo]):
            print(done.result(), flush=True)


def tried(
    study: str, seed: int, name: str, epochs: int, out: Path, data_dir: str | None, dense: float
) -> str:
    """Do one cell, and say what came out or why it is left out."""
    line = f"{study} seed {seed}  {name}, {epochs} epochs"
    try:
        found = cell(prepared(study, seed, out, data_dir), study, name, epochs, out, dense)
    except PruneError as error:
        return f"{line}: left out, {error}"
    return f"{line}: {100 * found['accuracy']:.2f} %"


@cache
def prepared(study: str, seed: int, out: Path, data_dir: str | None) -> Job:
    """Remember the job of a seed, so that one process prepares it once for all its cells."""
    return job_of(study, seed, out, data_dir)


def share(studies: dict[str, Study], threads: int) -> None:
    """Make a process of a pool ready: with the studies of its parent, and its part of the cores."""
    STUDIES.update(studies)
    torch.set_num_threads(threads)


def time_models(study: str, seed: int, out: Path, data_dir: str | None) -> None:
    """Time the recovered models of one seed side by side, each in pairs with the dense one.

    Models that are no longer there keep what was found when they were.
    """
    job = job_of(study, seed, out, data_dir)
    models = {"dense": copy.deepcopy(job.model).cpu()}
    for name, arm in ARMS.items():
        place = place_of(out, study, seed, name, phases(arm, STUDIES[study])[-1])
        stem = place.with_name(place.stem + "-model")
        if any(stem.parent.glob(stem.name + "*")):
            models[name] = load_checkpoint(stem, build(job.recipe, job.data))
    images = next(iter(job.data.train))[0][:64]
    timed = latency(models, images, threads=1, rounds=30)
    faster = speedups(timed, "dense")
    record = latencies(study, out) | {
        name: {
            "seconds": timed[name].median_s,
            "dense": timed["dense"].median_s,
            "verdict": faster[name].verdict,
        }
        for name in models
    }
    write_whole(out / study / "latency.json", json.dumps(record, indent=1) + "\n")


def about(name: str) -> str:
    """Say how the networks of a study are trained."""
    study = STUDIES[name]
    dense, recover = study.dense, study.recover
    images = f"{study.images:,} images" if study.images else "all training images"
    seeds = "Seeds share one dense network. " if study.shared else ""
    return (
        f"{seeds}The dense network learns {dense.epochs} epochs from {images}, at {dense.lr:g} at "
        f"most; recovery is {recover.epochs} epoch{'s' * (recover.epochs > 1)} at {recover.lr:g}, "
        "beside what a method trains itself.\n"
    )


def latencies(study: str, out: Path) -> dict[str, Any]:
    """Read what `time_models` measured: arm → seconds and verdict; nothing where it did not."""
    place = out / study / "latency.json"
    found: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return found


def seeds_of(study: str, out: Path) -> list[int]:
    """List the seeds of which the output folder has something."""
    return sorted(int(place.name.removeprefix("seed-")) for place in (out / study).glob("seed-*"))


def collect(study: str, out: Path) -> dict[str, dict[int, list[Any]]]:
    """Read what is there: arm → epochs → records over seeds; the dense network comes first."""
    found: dict[str, dict[int, list[Any]]] = {}
    seeds = seeds_of(study, out)
    for name, epochs in cells_of(study).items():
        own = seeds[:1] if name == "dense" and STUDIES[study].shared else seeds
        for n in epochs:
            places = [place_of(out, study, seed, name, n) for seed in own]
            if records := [json.loads(p.read_text()) for p in places if p.exists()]:
                found.setdefault(name, {})[n] = records
    return found


def recall(lines: Path, out: Path) -> None:
    """Lay the records of earlier runs out, so that they are not made again."""
    for line in lines.read_text().splitlines() if lines.exists() else ():
        record = json.loads(line)
        if "latency" in record:
            place, record = out / record["study"] / "latency.json", record["latency"]
        else:
            place = place_of(out, *(record.pop(k) for k in ("study", "seed", "arm", "epochs")))
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(record, indent=1) + "\n")


def record_all(lines: Path, out: Path) -> None:
    """Write one line for every record that the output folder has, latencies a line a study."""
    found = []
    for study in STUDIES:
        for seed in seeds_of(study, out):
            for arm, epochs in ((a, e) for a, es in cells_of(study).items() for e in es):
                if (place := place_of(out, study, seed, arm, epochs)).exists():
                    key = {"study": study, "seed": seed, "arm": arm, "epochs": epochs}
                    found.append(json.dumps(key | json.loads(place.read_text())))
        if timed := latencies(study, out):
            found.append(json.dumps({"study": study, "latency": timed}))
    write_whole(lines, "\n".join(found) + "\n")


def short(name: str) -> str:
    """Check the name of a study; for `argparse`, which takes choices for no list's default."""
    known = [s for s in STUDIES if s != FULL]
    if name not in known:
        raise argparse.ArgumentTypeError(f"unknown study {name!r}; use {', '.join(known)}")
    return name


def words(about: str, page: str) -> argparse.ArgumentParser:
    """Return a parser of what this benchmark and bench/repair.py both take."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=short, default=["digits", "mnist"])
    parser.add_argument("--out", type=Path, default=Path("runs/channels"))
    parser.add_argument("--data-dir", default=os.environ.get("SECATEURS_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, default=Path("docs/results") / page)
    return parser


def main() -> None:
    parser = words(__doc__, "channels.md")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once, which share the cores")
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument(
        "--full",
        action=argparse.BooleanOptionalAction,
        default=device() != "cpu",
        help="train CIFAR-10 at full length; so it is on a GPU",
    )
    parser.add_argument("--collect", action="store_true", help="compute nothing")
    parser.add_argument("--time", action="store_true", help="time the models of the first seed")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs} does nothing; use 1 or more")
    lines = args.page.with_suffix(".jsonl")
    recall(lines, args.out)
    for study in (FULL if s == "cifar10" and args.full else s for s in args.studies):
        if args.time:
            time_models(study, args.seeds[0], args.out, args.data_dir)
        elif not args.collect:
            run(study, args.seeds, args.only, args.out, args.data_dir, args.jobs)
        results = {s: collect(s, args.out) for s in STUDIES}
        record_all(lines, args.out)
        timed = {s: latencies(s, args.out) for s in STUDIES}
        below = own_words(args.page, WORDS, WHY)
        write_whole(args.page, page(results, timed, {s: about(s) for s in STUDIES}, below))


if __name__ == "__main__":
    main()
