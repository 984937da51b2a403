"""The control of a cut: the same small architecture, trained from nothing.

A pruned network that is no better than its own architecture with fresh weights has gained
nothing from the large one's weights (Liu et al. 2019, arXiv:1810.05270).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from secateurs.core.errors import StructureError
from secateurs.measure.compute import macs
from secateurs.measure.paired import hits, paired
from secateurs.methods.scratch import from_nothing
from secateurs.methods.task import Pruned
from secateurs.realise.checkpoint import save_checkpoint
from secateurs.realise.masked import masked
from secateurs.runs.prepare import Job
from secateurs.runs.recipe import Cut
from secateurs.runs.saved import CONTROLS
from secateurs.runs.stages import Stages


def lengths(
    dense: int, parts: Mapping[str, int], dense_macs: int, small_macs: int
) -> dict[str, int]:
    """Say for how many epochs each control trains: as many, and at as much compute, in all.

    Both count what the pruned network has had: the dense training, then every part of the
    cut, at the dense network's cost except for the recovery. With no more than the dense
    training they are the paper's scratch-E and scratch-B. A compute that makes the same
    number of epochs, as of masks, makes no control of its own.

    Args:
        dense: epochs of the dense training.
        parts: the cut's own trainings by name, and their epochs.
        dense_macs: of one example.
        small_macs: likewise.

    >>> lengths(160, {}, 313_196_544, 206_143_488)
    {'scratch-e': 160, 'scratch-b': 243}
    """
    after = sum(epochs for name, epochs in parts.items() if name.endswith("-recover"))
    before = dense + sum(parts.values()) - after
    same = {
        "scratch-e": before + after,
        "scratch-b": before * dense_macs // small_macs + after,
    }
    return same if same["scratch-b"] != same["scratch-e"] else {"scratch-e": same["scratch-e"]}


def train_controls(
    job: Job, cut: Cut, pruned: Pruned, parts: Mapping[str, int], stages: Stages, folder: Path
) -> list[str]:
    """Train the controls of one cut and save them; → why, where there can be none."""
    assert cut.control is not None
    try:
        fresh = from_nothing(pruned.model, seed=job.recipe.seed)
    except StructureError as error:
        return [f"{cut.label} has no control from scratch: {error}"]
    costs = (macs(model, job.example) for model in (job.model, fresh))
    for name, epochs in lengths(cut.control.epochs, parts, *costs).items():
        model = from_nothing(pruned.model, seed=job.recipe.seed)
        with masked(model, pruned.mask):
            stages.fit(model, f"{cut.label}-{name}", replace(cut.control, epochs=epochs))
        save_checkpoint(folder / f"{cut.label}-{name}", model, spec=job.recipe.model)
    return []


def control_notes(job: Job, models: Mapping[str, nn.Module]) -> list[str]:
    """Say how every pruned model compares with its controls on the test set."""
    assert job.data.test is not None, "prepare() has checked"
    notes = []
    for cut in job.recipe.cuts:
        against = {n: f"{cut.label}-{n}" for n in CONTROLS if f"{cut.label}-{n}" in models}
        ours = hits(models[cut.label], job.data.test) if against else None
        for name, label in against.items():
            assert ours is not None
            found = paired(ours, hits(models[label], job.data.test))
            notes.append(
                f"{cut.label} against {name}, the same architecture trained from nothing for "
                f"{CONTROLS[name]}: {found}. Seeds, which also differ, are not in this interval."
            )
    return notes
