"""Every method that removes channels, on the digits at half the MACs, over seeds.

    python bench/channels_digits.py --out runs/channels-digits

Each method cuts the same trained network, without training and with a short recovery after.
Every cell leaves one JSON file in the output folder; what is there is not done again. Writes
docs/results/channels-digits.md; `--collect` writes it from what is there. Arms are read from
the table below; a method that METHODS does not hold is left out.
"""

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from secateurs.measure.accuracy import evaluate
from secateurs.measure.compute import macs
from secateurs.measure.report import write_whole
from secateurs.measure.size import parameters
from secateurs.measure.table import aligned
from secateurs.methods.table import METHODS
from secateurs.methods.task import Target
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.runs.job import prune
from secateurs.runs.prepare import Job, prepare
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.stages import Stages

COMMAND = "python bench/channels_digits.py --out runs/channels-digits"
DENSE = Trainer(epochs=20, lr=0.1, schedule="one_cycle")
RECOVER = replace(FINETUNE, epochs=4, lr=0.02)
HALF = Target("macs", 0.5)
SEVEN_TENTHS = Target("density", 0.7)
"""Of every layer's channels: the widths that `uniform` ranking has at half the MACs."""


@dataclass(frozen=True)
class Arm:
    method: str
    target: Target = HALF
    options: dict[str, Any] = field(default_factory=dict)
    only_trained: bool = False
    """Whether the method is nothing without training."""


_CHANNELS = {"granularity": "out_channel"}
ARMS = {
    "random": Arm("random", SEVEN_TENTHS, _CHANNELS),
    "l1": Arm("magnitude", SEVEN_TENTHS, _CHANNELS),
    "l2": Arm("magnitude", SEVEN_TENTHS, {**_CHANNELS, "norm": "l2"}),
    "l1, all layers together": Arm("magnitude", HALF, _CHANNELS),
    "FPGM": Arm("fpgm"),
    "FPGM-mix": Arm("fpgm", options={"mix": 0.25}),
    "soft filters, l2": Arm("soft_filter", only_trained=True),
    "soft filters, FPGM": Arm("soft_filter", options={"criterion": "fpgm"}, only_trained=True),
    "kernels (0.5), then filters": Arm("kernels_first"),
    "kernels (adaptive), then filters": Arm("kernels_first", options={"budget": "adaptive"}),
    "NISP": Arm("nisp"),
    "slimming": Arm("slimming", options={"strength": 3e-3}),
    "HRank": Arm("hrank"),
    "CHIP": Arm("chip"),
    "LASSO + least squares": Arm("lasso_channels"),
    "reduce and reuse": Arm("reduce_reuse"),
    "DCP": Arm("dcp"),
    "scratch, widths of l1": Arm("scratch", options={"of": "magnitude"}, only_trained=True),
}


def job_of(seed: int, out: Path) -> Job:
    """Train the network a seed stands for, or read it back."""
    recipe = Recipe(
        "digits_cnn", "digits", (), dense=replace(DENSE, seed=seed), batch_size=64, seed=seed
    )
    job = prepare(recipe)
    Stages(job.data, out / f"seed-{seed}").fit(job.model, "dense", replace(DENSE, seed=seed))
    return job


def cell(
    job: Job, name: str, epochs: int, out: Path, *, collect: bool = False
) -> dict[str, Any] | None:
    """Return what one arm gives on one seed, done or read back; None if only to be collected."""
    arm, seed = ARMS[name], job.recipe.seed
    place = out / f"seed-{seed}" / f"{name.replace(' ', '-')}-{epochs}.json"
    if collect and not place.exists():
        return None
    if place.exists():
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    cut = Cut(arm.method, arm.target, arm.options, replace(RECOVER, epochs=epochs, seed=seed))
    stages = Stages(job.data, place.with_suffix(""))
    pruned = prune(job, cut, stages)
    assert job.data.test is not None
    record = {
        "accuracy": evaluate(pruned.model, job.data.test).value,
        "macs": macs(pruned.model, job.data.example) / macs(job.model, job.data.example),
        "parameters": parameters(pruned.model) / parameters(job.model),
        "proof": pruned.compacted.proof.difference if pruned.compacted else None,
        "notes": list(pruned.notes),
    }
    write_whole(place, json.dumps(record, indent=1) + "\n")
    return record


def shown(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def page(dense: list[float], cells: dict[str, dict[int, list[dict[str, Any]]]]) -> str:
    lines = [("method", "MACs", "parameters", "cut", "recovered", "seeds", "notes")]
    lines.append(("dense", "100 %", "100 %", shown(dense), "", str(len(dense)), ""))
    for name, phases in cells.items():
        last = phases[max(phases)]
        columns = [
            shown([100 * c["accuracy"] for c in phases[epochs]]) if epochs in phases else "-"
            for epochs in (0, RECOVER.epochs)
        ]
        share = [f"{100 * mean(c[key] for c in last):.0f} %" for key in ("macs", "parameters")]
        note = last[0]["notes"][0].partition(": ")[2] if name.startswith("FPGM") else ""
        seeds = " and ".join(dict.fromkeys(str(len(phases[e])) for e in sorted(phases)))
        lines.append((name, *share, *columns, seeds, note))
    return (
        "# Channels removed from a small residual network on the digits\n\n"
        "Test accuracy in %, mean and standard deviation over the seeds done, of `digits_cnn` on\n"
        "the 360 test images of scikit-learn's digits (one image is 0.28 points; one standard\n"
        "error at 97 % is 0.9 points). `cut`: batch norms measured anew and nothing trained;\n"
        f"`recovered`: {RECOVER.epochs} epochs more. All are physically smaller networks, each\n"
        "proved to compute what the masked one does; MACs are of those dense networks. `random`,\n"
        "`l1` and `l2` keep the same fraction of every layer as the uniform methods do.\n\n"
        f"{aligned(lines)}\n\n"
        "Every difference after recovery is within the noise of this data set: no method is shown\n"
        "to be better than another, than chance, or than the same widths trained from scratch.\n"
        "Without training the rows differ, and fitting the next layer's weights by least squares\n"
        "(the last rows that do) matters more than the choice of channels. Rows of one seed say\n"
        "nothing about spread. Notes compare FPGM with l2 on the first seed.\n\n"
        f"Made by `{COMMAND}`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/channels-digits"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--collect", action="store_true", help="compute nothing")
    parser.add_argument("--page", type=Path, default=Path("docs/results/channels-digits.md"))
    args = parser.parse_args()
    dense: list[float] = []
    cells: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in args.seeds:
        job = job_of(seed, args.out)
        assert job.data.test is not None
        dense.append(100 * evaluate(job.model, job.data.test).value)
        for name in args.only:
            if ARMS[name].method not in METHODS:
                continue
            for epochs in (RECOVER.epochs,) if ARMS[name].only_trained else (0, RECOVER.epochs):
                found = cell(job, name, epochs, args.out, collect=args.collect)
                if found is None:
                    continue
                cells.setdefault(name, {}).setdefault(epochs, []).append(found)
                print(f"seed {seed}  {name}, {epochs} epochs: {100 * found['accuracy']:.1f} %")
    text = page(dense, cells)
    write_whole(args.page, text)
    print(text)


if __name__ == "__main__":
    main()
