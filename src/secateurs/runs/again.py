"""Time the models of a finished run once more."""

from pathlib import Path

from secateurs.measure.latency import Latency, Speedup
from secateurs.runs.folder import read_recipe
from secateurs.runs.prepare import inputs
from secateurs.runs.results import timings
from secateurs.runs.saved import models_of


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
    job = inputs(read_recipe(folder))
    models = models_of(job, folder)
    timed, faster = timings(job, models, batch=batch, threads=threads, rounds=rounds)
    return {label: (timed[label], faster[label]) for label in models}
