"""The models of a run as files: written, and read back."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from secateurs.methods.task import Pruned
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.coding.container import write
from secateurs.realise.packed import about, held
from secateurs.runs.prepare import Job, build, told_to_create
from secateurs.runs.recipe import Cut, Recipe

DENSE = "dense"
CONTROLS = {"scratch-e": "as many epochs", "scratch-b": "as much compute"}
"""Ending of a control's label → what it has in common with the pruned model in all."""


def save_dense(job: Job, folder: Path) -> None:
    """Write the dense model."""
    save_checkpoint(folder / DENSE, job.model, spec=job.recipe.model)


def save_pruned(job: Job, cut: Cut, pruned: Pruned, folder: Path) -> None:
    """Write a pruned model; its zeros are its mask, a changed architecture tells how it was.

    `LABEL.secz` is the same model packed into as few bytes as it takes.
    """
    save_checkpoint(
        folder / cut.label,
        pruned.model,
        spec=job.recipe.model,
        recipe=job.recipe.to_json(),
    )

    state = held(pruned.model)
    again = {pruned.model.get_parameter(name).data_ptr(): c for name, c in pruned.coded.items()}
    tensors = {name: again.get(t.data_ptr(), t) if t.numel() else t for name, t in state.items()}
    told = about(pruned.model, job.recipe.model, **told_to_create(job.data))
    write(packed_file(folder, cut.label), tensors, told, **pruned.code)


def packed_file(folder: Path, label: str) -> Path:
    """Return where a pruned model is packed."""
    return folder / f"{label}.secz"


def weights_file(folder: Path, label: str) -> Path:
    """Return where a model's tensors are."""
    return folder / f"{label}.safetensors"


def labels_of(recipe: Recipe, folder: Path) -> list[str]:
    """List the models of a run: the dense one, then every cut, and after it its controls.

    A control is there where it could be trained.
    """
    labels = [DENSE]
    for cut in recipe.cuts:
        controls = [f"{cut.label}-{name}" for name in CONTROLS] if cut.control else []
        labels += [cut.label, *(c for c in controls if weights_file(folder, c).exists())]
    return labels


def models_of(job: Job, folder: Path) -> dict[str, nn.Module]:
    """Read every model of a run into fresh instances: label → model, as `labels_of` lists them.

    Raises:
        FileError: a file is missing or damaged.
    """
    plain = replace(job.recipe, pretrained=False)
    return {
        label: load_checkpoint(folder / label, build(plain, job.data))
        for label in labels_of(job.recipe, folder)
    }
