"""Everything a job needs, checked before any work starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError, ShapeError
from secateurs.core.example import Example, call, tensors
from secateurs.data.load import Data, load
from secateurs.measure.forward import device_of, evaluation, to_device
from secateurs.methods.table import method
from secateurs.methods.where import reachable, where
from secateurs.models.create import create
from secateurs.realise.state import load_state
from secateurs.runs.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """A recipe with its model and data, ready to run."""

    recipe: Recipe
    model: nn.Module
    """Dense, and trained unless `recipe.dense` says how to; on the recipe's device."""
    data: Data

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @property
    def example(self) -> Example:
        """The data's example, where the model is."""
        return to_device(self.data.example, self.device)  # type: ignore[no-any-return]

    def batches(self, n: int) -> list[Any]:
        """Return the first n training batches, where the model is."""
        return [to_device(batch, self.device) for batch in self.data.batches(n)]


def prepare(recipe: Recipe) -> Job:
    """Check the recipe, then build what it names and check that it fits.

    Raises:
        PruneError: of the kind that fits; nothing has been written then.
    """
    device = device_named(recipe.device)
    for cut in recipe.cuts:
        method(cut.method, cut.options)
    for cut in recipe.cuts:
        if cut.control is not None and cut.control.epochs < 1:
            raise PruneError(
                "a control trains as long as the dense network did, and nobody said how long; "
                "pass --control-epochs N"
            )
    labels = [cut.label for cut in recipe.cuts]
    if len(set(labels)) < len(labels):
        raise PruneError(
            f"two cuts of one run are called {max(labels, key=labels.count)!r}, and their files "
            "would overwrite each other; run them into two folders"
        )
    if recipe.cuts and recipe.checkpoint is None and not recipe.pretrained and not recipe.dense:
        raise PruneError(
            f"pruning needs a trained {recipe.model}; pass --checkpoint FILE or --pretrained, "
            "or --dense-epochs N to train it first"
        )
    job = inputs(recipe)
    for cut in recipe.cuts:
        if "granularity" in cut.options:
            grain = cut.options["granularity"]
            reachable(where(job.model, job.data.example, grain), cut.target)
    job.model.to(device)
    return job


def inputs(recipe: Recipe) -> Job:
    """Build model and data, load the weights and check that they fit each other.

    Raises:
        PruneError: of the kind that fits.
    """
    data = load(
        recipe.data,
        data_dir=recipe.data_dir,
        batch_size=recipe.batch_size,
        image_size=recipe.image_size,
        seed=recipe.seed,
    )
    if data.valid is None or data.test is None:
        raise PruneError(
            f"data {recipe.data!r} holds no images apart to test on; add a folder 'test' or 'val'"
        )
    model = build(recipe, data)
    if recipe.checkpoint is not None:
        load_state(model, Path(recipe.checkpoint))
    fits(model, data.example, recipe)
    return Job(recipe, model, data)


def device_named(word: str | None) -> torch.device:
    """Return the device of that name, the CPU for None.

    Raises:
        PruneError: torch knows no such device, or cannot use it here.
    """
    try:
        device = torch.device(word or "cpu")
        float(torch.zeros(1, device=device))  # nothing is stored on `meta`
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise PruneError(f"cannot use device {word!r}: {first}; use cpu, or leave it out") from None
    return device


def build(recipe: Recipe, data: Data) -> nn.Module:
    """Build the model for the data's classes and channels; its first weights follow the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return create(recipe.model, **told_to_create(data), pretrained=recipe.pretrained)


def told_to_create(data: Data) -> dict[str, int | None]:
    """Return what the data say about a model: classes, and channels where they are images."""
    example = data.example
    channels = None
    if isinstance(example, Tensor) and example.ndim == 4:
        channels = example.shape[1]
    return {"classes": data.classes, "in_channels": channels}


def fits(model: nn.Module, example: Example, recipe: Recipe) -> None:
    """Raise `ShapeError` unless the model can be called on the data's example."""
    try:
        with evaluation(model):
            call(model, example)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        shapes = ", ".join(str(tuple(t.shape[1:])) for t in tensors(example))
        raise ShapeError(
            f"model {recipe.model!r} does not take the images of {recipe.data!r}, "
            f"{shapes}: {first}; choose a model or data that fit"
        ) from error
