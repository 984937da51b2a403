"""The command that writes a pruned model for another engine."""

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli import show
from secateurs.cli.words import model_of, new_file, only
from secateurs.core.whole import write_bytes
from secateurs.measure.human import size
from secateurs.runs.again import meant
from secateurs.runs.exporting import export_run
from secateurs.runs.saved import DENSE


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE", help="The folder of a run, or one of its models, LABEL.safetensors."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once when timed.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each model is timed.")] = 20,
) -> None:
    """Write a pruned model as ONNX, check it in ONNX Runtime, and time it beside the dense one.

    Needs `pip install 'secateurs[export]'`.

    Example: `secateurs export demo-run/magnitude-out_channel.safetensors --out half.onnx`
    """
    new_file(out)
    folder, label = model_of(source)
    label = label or only(source, meant(folder))
    with show.waiting(f"exporting {source}"):
        found = export_run(folder, label=label, batch=batch, threads=threads, rounds=rounds)
    file, dense = found.files[label], found.files[DENSE]
    write_bytes(out, file.data)
    show.timings(found.times)
    beside = (
        f"the dense model's would be {size(len(dense.data))}"
        if len(file.data) < 0.99 * len(dense.data)
        else "no smaller than the dense one, for zeros are stored as zeros"
    )
    images = "any number of images" if file.any_batch else "as many images as were timed"
    show.out.print(
        f"{out}: {size(len(file.data))}, {beside}; "
        f"takes {images}; in ONNX Runtime its outputs are {file.difference:.1g} of their "
        "deviation from torch's.",
        markup=False,
        highlight=False,
    )
