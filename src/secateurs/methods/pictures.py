"""What methods draw: a file in the task's folder, and a picture for the report."""

from pathlib import Path

from secateurs.measure.report import write_whole
from secateurs.methods.task import Task


def hung(task: Task, place: Path, svg: str, *, what: str, caption: str) -> dict[str, str]:
    """Write a picture, say what and where it is, and return it under its caption."""
    write_whole(place, svg)
    task.say(f"{what}: {place}")
    return {caption: svg}
