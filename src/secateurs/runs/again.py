"""Time the models of a finished run once more."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from secateurs.core.errors import FileError
from secateurs.measure.latency import Latency, Speedup
from secateurs.realise.sparse.accelerate import Weights, accelerate
from secateurs.realise.sparse.accelerated import Accelerated
from secateurs.runs.folder import read_recipe
from secateurs.runs.prepare import Job, inputs
from secateurs.runs.results import example_of, timings
from secateurs.runs.saved import DENSE, labels_of, models_of


def time_again(
    folder: Path, *, batch: int | None = None, threads: int | None = 1, rounds: int = 20
) -> dict[str, tuple[Latency, Speedup]]:
    """Time a run's models side by side, as they were saved: label → latency, and against dense.

    Args:
        folder: of a run that is done.
        batch: how many images at once; as the run's report when None.
        threads: how many CPU threads; as torch has them set when None.
        rounds: how often each model is timed.

    Raises:
        FileError: the folder holds no finished run.
    """
    job, models = read_run(folder)
    timed, faster = timings(job, models, batch=batch, threads=threads, rounds=rounds)
    return {label: (timed[label], faster[label]) for label in models}


def accelerate_run(
    folder: Path,
    *,
    label: str | None = None,
    batch: int | None = None,
    threads: int | None = 1,
    rounds: int = 20,
    weights: Weights = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Accelerated]:
    """Accelerate a run's pruned models, each timed against itself as dense: label → result.

    Args:
        folder: of a run that is done.
        label: of one model; all pruned ones when None, the dense one if there is no other.
        batch: how many images at once; as the run's report when None.
        threads: how many CPU threads; as torch has them set when None.
        rounds: how often each whole network is timed.
        weights: `int8` also tries weights of 8 bits; see `accelerate`.
        progress: called with (layers timed, of).

    Raises:
        FileError: the folder holds no finished run, or no model called `label`.
    """
    wanted = meant(folder, label)
    job, models = read_run(folder)
    example = example_of(job, models, batch)
    return {
        name: accelerate(
            models[name],
            example,
            threads=threads,
            rounds=rounds,
            weights=weights,
            progress=progress,
        )
        for name in wanted
    }


def meant(folder: Path, label: str | None = None) -> list[str]:
    """List the models of a run that are meant: all pruned ones where none is named.

    Args:
        folder: of a run that is done.
        label: of one model; when None, the dense one is meant if there is no other.

    Raises:
        FileError: the folder holds no finished run, or no model called `label`.
    """
    labels = labels_of(read_recipe(folder), folder)
    if label is not None and label not in labels:
        raise FileError(f"{str(folder)!r} holds no model {label!r}; it holds {', '.join(labels)}")
    return [label] if label else [name for name in labels if name != DENSE] or [DENSE]


def read_run(folder: Path) -> tuple[Job, dict[str, nn.Module]]:
    """Read a run: its job without weights, and its models by label.

    Raises:
        FileError: the folder holds no finished run.
    """
    job = inputs(read_recipe(folder))
    return job, models_of(job, folder)
