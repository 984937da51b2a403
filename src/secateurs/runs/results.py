"""Measure the models of a run as they were saved, and write the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from secateurs.measure.accuracy import evaluate
from secateurs.measure.compute import macs
from secateurs.measure.environment import environment
from secateurs.measure.html import render
from secateurs.measure.latency import Latency, Speedup, latency, speedups
from secateurs.measure.perlayer import layer_rows
from secateurs.measure.report import Curve, Proof, Report, measure_row, write_whole
from secateurs.methods.task import Pruned
from secateurs.recovery.history import History
from secateurs.runs.control import control_notes
from secateurs.runs.prepare import Job
from secateurs.runs.recipe import Cut
from secateurs.runs.saved import DENSE, models_of, packed_file, weights_file
from secateurs.runs.sparse import sparse_note

_WORK = 2e9
"""Timing uses as many images at once as need about this many MACs, 64 at most."""


def report_on(
    job: Job,
    pruned: Sequence[Pruned],
    histories: Mapping[str, History],
    folder: Path,
    notes: Sequence[str] = (),
) -> Report:
    """Measure every saved model and write `report.json` and `report.html`, `notes` included.

    Accuracy is of the test set, which nothing else of a run has looked at.
    """
    models = models_of(job, folder)
    assert job.data.test is not None, "prepare() has checked"
    assert job.data.valid is not None, "prepare() has checked"
    test, valid = job.data.test, job.data.valid
    timed, faster = timings(job, models)
    cut_labels = {cut.label for cut in job.recipe.cuts}
    rows = tuple(
        measure_row(
            label,
            model,
            job.data.example,
            path=weights_file(folder, label),
            packed=packed_file(folder, label) if label in cut_labels else None,
            latency=timed[label],
            speedup=faster[label],
            test=evaluate(model, test),
            valid=evaluate(model, valid),
        )
        for label, model in models.items()
    )
    cuts = list(zip(job.recipe.cuts, pruned, strict=True))
    report = Report(
        title=f"{job.recipe.model} on {job.recipe.data}",
        rows=rows,
        layers=tuple(row for label, model in models.items() for row in layer_rows(model, label)),
        proofs=tuple(proof for cut, result in cuts for proof in _proofs(cut, result)),
        curves=tuple(
            Curve(part, tuple(history.to_json()["epochs"])) for part, history in histories.items()
        ),
        notes=(
            *(n for cut, result in cuts for n in _notes(cut, result, faster[cut.label])),
            *(
                sparse_note(cut.label, models[cut.label], example_of(job, models))
                for cut, result in cuts
                if result.compacted is None
            ),
            *control_notes(job, models),
            *notes,
        ),
        environment=environment(),
        recipe=job.recipe.to_json(),
    )
    report.save(folder / "report.json")
    pictures = {
        f"{cut.label}. {caption}": svg
        for cut, result in cuts
        for caption, svg in result.pictures.items()
    }
    write_whole(folder / "report.html", render(report, pictures))
    return report


def timings(
    job: Job,
    models: Mapping[str, nn.Module],
    *,
    batch: int | None = None,
    threads: int | None = 1,
    rounds: int = 20,
) -> tuple[dict[str, Latency], dict[str, Speedup]]:
    """Time the models side by side on the data's own images, and compare each with dense.

    On one thread unless told otherwise: where cores are shared, several threads wait for
    each other and time the machine instead of the model.
    """
    example = example_of(job, models, batch)
    timed = latency(models, example, threads=threads, rounds=rounds)
    return timed, speedups(timed, DENSE)


def example_of(job: Job, models: Mapping[str, nn.Module], batch: int | None = None) -> Tensor:
    """Return the data's own images that models are timed on, as many as `batch` or as suit them."""
    return _images(job, batch or _batch(job, models[DENSE]))


def _batch(job: Job, dense: nn.Module) -> int:
    work = macs(dense, job.data.example, per_example=True)
    return max(1, min(64, int(_WORK / max(1, work))))


def _images(job: Job, count: int) -> Tensor:
    found: list[Tensor] = []
    for x, _ in job.data.valid or ():
        found.append(x)
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]


def _proofs(cut: Cut, pruned: Pruned) -> list[Proof]:
    if pruned.compacted is None:
        return []
    proof = pruned.compacted.proof
    claim = (
        f"{cut.label}: the smaller model and the {proof.against} agree in float64 "
        f"on an input of shape {proof.example}"
    )
    return [Proof(claim, proof.difference, proof.tolerance, proof.effect)]


def _notes(cut: Cut, pruned: Pruned, faster: Speedup) -> list[str]:
    if pruned.compacted is None:
        return [
            f"{cut.label}: the zeros stay inside dense tensors, so the plain file is as long as "
            f"the dense one and dense kernels do the same work, timed side by side: "
            f"{faster.verdict}. Only the packed file, {cut.label}.secz, is smaller.",
            *pruned.notes,
        ]
    small = pruned.compacted
    units = sum(small.removed.values())
    lines = [
        f"{cut.label}: {units} coupled units were removed from {len(small.removed)} places; "
        f"the result is a {small.how}; timed side by side: {faster.verdict}."
    ]
    lines += [f"{cut.label}: put back {p.bucket}: {p.reason}" for p in small.put_back]
    return [*lines, *pruned.notes]
