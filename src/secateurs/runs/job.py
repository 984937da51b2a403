"""Run a recipe: train if asked, prune, recover, save, measure, report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secateurs.measure.report import Report
from secateurs.methods.table import method
from secateurs.methods.task import Pruned, Task
from secateurs.recovery.history import Progress
from secateurs.runs.control import train_controls
from secateurs.runs.folder import open_folder
from secateurs.runs.prepare import Job, prepare
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.results import report_on
from secateurs.runs.saved import save_dense, save_pruned
from secateurs.runs.stages import Recovery, Stages

CALIBRATION_BATCHES = 20
"""How many training batches repair batch norms and feed evidence."""


@dataclass(frozen=True)
class Say:
    """Where a run tells what it is doing."""

    line: Callable[[str], None] = lambda line: None
    progress: Callable[[str], Progress] | None = None
    """Part's name → where its training reports to."""


SILENT = Say()


def run(recipe: Recipe, folder: Path, *, resume: bool = False, say: Say = SILENT) -> Report:
    """Run a recipe into a folder and return what was measured.

    The folder ends with `recipe.json`, `report.json`, `report.html`, `dense.safetensors`
    and every pruned model. Killed at any moment the run loses at most one epoch; called
    again with `resume` it goes on and ends in the same weights.

    Raises:
        PruneError: of the kind that fits; before anything is written where the recipe
            itself is at fault.
    """
    job = prepare(recipe)
    open_folder(folder, recipe, resume=resume)
    stages = Stages(job.data, folder / "stages", say.progress)
    if recipe.dense is not None:
        say.line(f"training {recipe.model} on {recipe.data}, {recipe.dense.epochs} epochs")
        stages.fit(job.model, "dense", recipe.dense)
    save_dense(job, folder)
    pruned, notes = [], list[str]()
    for cut in recipe.cuts:
        say.line(f"pruning: {cut.label}, {cut.target.kind} {cut.target.fraction:g}")
        done = set(stages.histories)
        result = prune(job, cut, stages, say)
        save_pruned(job, cut, result, folder)
        pruned.append(result)
        if cut.control is not None:
            say.line(f"training the architecture of {cut.label} from nothing, to compare with")
            parts = {p: len(h.epochs) for p, h in stages.histories.items() if p not in done}
            notes += train_controls(job, cut, result, parts, stages, folder)
    say.line("measuring: accuracy on the test set, latency side by side")
    return report_on(job, pruned, stages.histories, folder, notes)


def prune(job: Job, cut: Cut, stages: Stages, say: Say = SILENT) -> Pruned:
    """Apply one cut to a copy of the job's model."""
    recovery = Recovery(stages, cut.label, cut.recover) if cut.recover.epochs else None
    task = Task(
        model=job.model,
        example=job.example,
        train=recovery,
        batches=lambda: job.batches(CALIBRATION_BATCHES),
        steps=len(job.data.train) * cut.recover.epochs,
        folder=stages.folder / cut.label,
        repair=cut.repair,
        seed=job.recipe.seed,
        say=say.line,
    )
    return method(cut.method, cut.options)(task, cut.target, **cut.options)
