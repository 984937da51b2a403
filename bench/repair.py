"""How far repair without training goes: cut by l2 to ever fewer MACs, and mend in three ways.

    python bench/repair.py digits mnist cifar10 --data-dir DATA --out runs/channels

The dense networks are those of bench/channels.py, in the same folder. Every cell leaves a JSON
file; what is there is not done again. Writes docs/results/repair.md.
"""

import json
from pathlib import Path
from typing import Any

from channels import STUDIES, job_of, words
from channels_page import shown

from secateurs.measure.accuracy import evaluate
from secateurs.measure.compute import macs
from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned
from secateurs.methods.task import Target
from secateurs.recovery.settings import Trainer
from secateurs.runs.job import prune
from secateurs.runs.prepare import Job
from secateurs.runs.recipe import Cut
from secateurs.runs.stages import Stages

REPAIRS = ("none", "bn", "least-squares")
LEFT = (0.5, 0.3, 0.2, 0.1)
HEAD = """# Repair without training

Channels cut by l2, every layer alike, to a share of the MACs; test accuracy in %, mean ± standard
deviation over seeds. Nothing is trained after the cut. `none` leaves what is left as it is, `bn`
measures batch norms anew and gives the outputs of other cut layers the mean and spread they had
(Jordan et al. 2023, arXiv:2211.08403), `least-squares` fits each layer to what the dense network
computes there, on 20 batches without labels. LeNet-5 has no batch norm.
"""


def cell(job: Job, study: str, left: float, repair: str, out: Path) -> dict[str, Any]:
    """Return what one cut gives with one repair, done or read back."""
    place = out / study / f"seed-{job.recipe.seed}" / f"repair-{left:g}-{repair}.json"
    if place.exists():
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    options = {"granularity": "out_channel", "norm": "l2"}
    cut = Cut("magnitude", Target("macs", left), options, Trainer(epochs=0), repair)
    small = prune(job, cut, Stages(job.data, place.with_suffix(""))).model
    assert job.data.test is not None
    record = {
        "accuracy": evaluate(small, job.data.test).value,
        "macs": macs(small, job.example) / macs(job.model, job.example),
    }
    write_whole(place, json.dumps(record) + "\n")
    return record


def page(results: dict[str, dict[str, dict[float, list[float]]]]) -> str:
    """Write what has been measured as one Markdown page."""
    parts = [HEAD]
    for study, found in results.items():
        dense = found.pop("dense")[1.0]
        seeds = f"{len(dense)} seed{'s' if len(dense) > 1 else ''}"
        lines = [("MACs left", *REPAIRS)]
        for left in LEFT:
            cells = (found.get(repair, {}).get(left, []) for repair in REPAIRS)
            lines.append((f"{left:.0%}", *map(shown, cells)))
        parts.append(f"## {STUDIES[study].model} on {study}, dense {shown(dense)}, {seeds}\n")
        parts += [aligned(lines), ""]
    parts.append("Made by `python bench/repair.py digits mnist cifar10 --data-dir DATA`.\n")
    return "\n".join(parts)


def main() -> None:
    args = words(__doc__, "repair.md").parse_args()
    results: dict[str, dict[str, dict[float, list[float]]]] = {}
    for study in args.studies:
        # Where all seeds cut the same network, one of them says it all.
        for seed in args.seeds[:1] if STUDIES[study].shared else args.seeds:
            job = job_of(study, seed, args.out, args.data_dir)
            assert job.data.test is not None
            found = results.setdefault(study, {})
            dense = 100 * evaluate(job.model, job.data.test).value
            found.setdefault("dense", {}).setdefault(1.0, []).append(dense)
            for left in LEFT:
                for repair in REPAIRS:
                    accuracy = 100 * cell(job, study, left, repair, args.out)["accuracy"]
                    found.setdefault(repair, {}).setdefault(left, []).append(accuracy)
                    print(f"{study} seed {seed}, {left:g}, {repair}: {accuracy:.2f}", flush=True)
            write_whole(args.page, page({s: dict(r) for s, r in results.items()}))


if __name__ == "__main__":
    main()
