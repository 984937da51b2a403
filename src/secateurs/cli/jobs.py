"""Commands that train, prune and measure."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli import show
from secateurs.cli.speeding import WEIGHTS_HELP, bench_sparse, grain_for
from secateurs.cli.words import Amounts, MultipleOf, amount, control_of, options
from secateurs.core.errors import UnknownNameError
from secateurs.measure.report import Report
from secateurs.recovery.settings import FINETUNE, Precision, Trainer
from secateurs.runs.demo import DEMO
from secateurs.runs.job import run
from secateurs.runs.recipe import Cut, Recipe, stamped
from secateurs.runs.search import smallest

Model = Annotated[
    str,
    typer.Argument(
        help="lenet5, resnet56, ... ; torchvision:NAME, timm:NAME or package.module:factory."
    ),
]
DataName = Annotated[str, typer.Option("--data", help="digits, mnist, cifar10 or folder:PATH.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where data sets live.", envvar="SECATEURS_DATA")
]
Out = Annotated[Path, typer.Option("--out", help="A new folder for everything the run makes.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Trained weights: .safetensors, or a .pt state dict.")
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Use the source's own trained weights.")
]
ImageSize = Annotated[
    int, typer.Option(min=1, help="Side of the square that images of a folder become.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a training step.")]
Seed = Annotated[int, typer.Option(help="Of shuffling, splits and initial weights.")]
Device = Annotated[
    str | None,
    typer.Option(help="Where to train and cut: cuda, cuda:1, ...; the CPU when left out."),
]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate.")]
PrecisionOf = Annotated[
    str, typer.Option("--precision", help="float32, bfloat16, or auto: the faster here.")
]


def demo(
    out: Out = Path("demo-run"),
    resume: Resume = False,
) -> None:
    """Train, prune two ways, measure and report, on embedded data in about a minute.

    Example: `secateurs demo --out demo-run`
    """
    _run(DEMO, out, resume)


def train(
    model: Model,
    data: DataName,
    out: Out,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 20,
    lr: Lr = None,
    batch_size: BatchSize = 128,
    weight_decay: Annotated[float, typer.Option(help="Of all weights.")] = 5e-4,
    precision: PrecisionOf = "auto",
    image_size: ImageSize = 224,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
) -> None:
    """Train a dense baseline, resumably; leaves OUT/dense.safetensors.

    Example: `secateurs train lenet5 --data mnist --data-dir data --epochs 10 --out runs/lenet5`
    """
    dense = _dense(epochs, lr, weight_decay, precision, seed)
    recipe = Recipe(
        model,
        data,
        (),
        dense=dense,
        data_dir=_text(data_dir),
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        device=device,
    )
    _run(recipe, out, resume)


def prune(
    model: Model,
    data: DataName,
    out: Out,
    method: Annotated[str, typer.Option(help="See `secateurs methods`.")] = "magnitude",
    granularity: Annotated[
        str, typer.Option(help="element, row, kernel, ..., or out_channel, removed physically.")
    ] = "element",
    density: Annotated[float | None, typer.Option(help="Fraction of units to keep.")] = None,
    macs: Annotated[
        float | None, typer.Option(help="Fraction of MACs to keep; needs out_channel.")
    ] = None,
    params: Annotated[
        float | None, typer.Option(help="Fraction of parameters to keep; needs out_channel.")
    ] = None,
    multiple_of: MultipleOf = 1,
    aim: Annotated[
        str | None,
        typer.Option("--for", help="speed: cut what is fastest here at --density, and say why."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Carry out a plan of `secateurs plan`; no other target.")
    ] = None,
    bytes: Annotated[
        int, typer.Option(min=0, help="Length of the packed file, at most, by deep_compression.")
    ] = 0,
    ratio: Annotated[
        float, typer.Option(min=0, help="Dense bytes by those of the packed file, at least.")
    ] = 0.0,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points of validation accuracy to give up for the smallest file."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE of the method; see `methods NAME`."),
    ] = None,
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = False,
    dense_epochs: Annotated[
        int, typer.Option(min=0, help="Train the dense model first, this long.")
    ] = 0,
    epochs: Annotated[int, typer.Option(min=0, help="Recovery after each cut.")] = 3,
    repair: Annotated[
        str,
        typer.Option(
            help="After a structural cut, before any training: none; bn measures batch norms "
            "anew and gives outputs elsewhere the mean and spread they had; least-squares fits "
            "every layer to what the dense one computed: nearest to it, and slower."
        ),
    ] = "bn",
    control: Annotated[
        str | None,
        typer.Option(help="scratch: also train the small architecture from nothing, and compare."),
    ] = None,
    control_epochs: Annotated[
        int, typer.Option(min=0, help="How long a given dense model was trained.")
    ] = 0,
    lr: Lr = None,
    batch_size: BatchSize = 128,
    precision: PrecisionOf = "float32",
    image_size: ImageSize = 224,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
) -> None:
    """Prune a trained model, recover, prove, save and measure it.

    Example: `secateurs prune lenet5 --data mnist --data-dir data --checkpoint
    runs/lenet5/dense.safetensors --granularity out_channel --macs 0.5 --out runs/half`
    """
    granularity = grain_for(aim, granularity, density)
    shares: Amounts = {"density": density, "macs": macs, "params": params}
    sizes: Amounts = {"bytes": bytes or None, "ratio": ratio or None, "max_drop": max_drop}
    method, target, words = amount(method, shares, sizes, multiple_of, plan)
    dense = _dense(dense_epochs or control_epochs, None, 5e-4, precision, seed)
    cut = Cut(
        method,
        target,
        options(method, granularity, [*(option or []), *words]),
        replace(
            FINETUNE, epochs=epochs, lr=lr or FINETUNE.lr, precision=_word(precision), seed=seed
        ),
        repair=repair,  # type: ignore[arg-type]  # Cut checks the word.
        control=control_of(control, dense),
    )
    recipe = Recipe(
        model,
        data,
        (cut,),
        checkpoint=_text(checkpoint),
        pretrained=pretrained,
        dense=dense if dense_epochs else None,
        data_dir=_text(data_dir),
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        device=device,
    )
    if max_drop is None:
        _run(recipe, out, resume)
        return
    with show.saying(out) as say:
        found = smallest(recipe, out, drop=max_drop, resume=resume, say=say)
    show.results(found.report)
    show.out.print(f"Smallest file: {found.folder}", highlight=False)


def bench(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each model is timed.")] = 20,
    engine: Annotated[
        str, typer.Option(help="torch, or sparse: skip zeros, and say layer by layer how.")
    ] = "torch",
    weights: Annotated[str, typer.Option(help=f"Of --engine sparse: {WEIGHTS_HELP}")] = "float32",
) -> None:
    """Time the models of a run again, side by side, on this machine.

    Example: `secateurs bench demo-run --batch 1 --threads 1 --engine sparse`
    """
    if engine not in ("torch", "sparse"):
        raise UnknownNameError(f"unknown engine {engine!r}; use torch or sparse")
    if engine == "sparse":
        bench_sparse(run_folder, batch, threads, rounds, weights)
        return
    if weights != "float32":
        raise UnknownNameError(f"--weights {weights!r} needs --engine sparse")
    from secateurs.runs.again import time_again

    timed = time_again(run_folder, batch=batch, threads=threads, rounds=rounds)
    show.timings(timed)


def _run(recipe: Recipe, out: Path, resume: bool) -> Report:
    with show.saying(out) as say:
        report = run(stamped(recipe, version("secateurs")), out, resume=resume, say=say)
    show.results(report)
    show.out.print(f"Report: {out / 'report.html'}", highlight=False)
    return report


def _dense(
    epochs: int, lr: float | None, weight_decay: float, precision: str, seed: int
) -> Trainer:
    rate = 0.1 if lr is None else lr
    return Trainer(
        epochs=epochs,
        lr=rate,
        weight_decay=weight_decay,
        schedule="one_cycle",
        precision=_word(precision),
        channels_last="auto" if precision == "auto" else False,
        seed=seed,
    )


def _word(precision: str) -> Precision:
    return precision  # type: ignore[return-value]  # Trainer checks the word.


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
