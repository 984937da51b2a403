"""A run's models in other engines: exported, checked there, and timed side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from secateurs.measure.latency import Latency, Speedup, latency, speedups
from secateurs.realise.onnx import Exported, OnnxRuntime, export_onnx
from secateurs.runs.again import meant, read_run
from secateurs.runs.results import example_of
from secateurs.runs.saved import DENSE


@dataclass(frozen=True)
class Timed:
    """Exports, and how fast each runs beside torch and the dense model's export."""

    files: Mapping[str, Exported]
    """Label → file."""
    times: Mapping[str, tuple[Latency, Speedup]]
    """`LABEL, ENGINE` → latency, and against the first of them."""


def export_run(
    folder: Path,
    *,
    label: str | None = None,
    batch: int | None = None,
    threads: int = 1,
    rounds: int = 20,
) -> Timed:
    """Export a run's pruned models to ONNX, and the dense one to be timed beside them.

    Args:
        folder: of a run that is done.
        label: of one model; all pruned ones when None, the dense one if there is no other.
        batch: how many images at once; as the run's report when None.
        threads: how many CPU threads.
        rounds: how often each model is timed.

    Raises:
        FileError: the folder holds no finished run, or no model called `label`.
        StructureError: a model cannot be exported.
    """
    wanted = meant(folder, label)
    job, models = read_run(folder)
    example = example_of(job, models, batch)
    labels = dict.fromkeys([DENSE, *wanted])
    files = {name: export_onnx(models[name], example) for name in labels}
    engines: dict[str, nn.Module] = {}
    for name in labels:
        engines[f"{name}, ONNX Runtime"] = OnnxRuntime(files[name].data, threads=threads)
        engines[f"{name}, torch"] = models[name]
    taken = latency(engines, example, threads=threads, rounds=rounds)
    faster = speedups(taken, f"{DENSE}, ONNX Runtime")
    return Timed(files, {name: (taken[name], faster[name]) for name in engines})
