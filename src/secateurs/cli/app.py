"""The commands, and how errors become one sentence and an exit code."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from secateurs.cli import comparing, exporting, jobs, looking, packing, speeding
from secateurs.cli.show import err
from secateurs.core.errors import PruneError

app = typer.Typer(
    name="secateurs",
    help="Prune trained PyTorch networks into smaller, faster ones, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(jobs.demo)
app.command("train")(jobs.train)
app.command("prune")(jobs.prune)
app.command("compare")(comparing.compare)
app.command("bench")(jobs.bench)
app.command("accelerate")(speeding.accelerate)
app.command("export")(exporting.export)
app.command("pack")(packing.pack)
app.command("unpack")(packing.unpack)
app.command("inspect")(looking.inspect)
app.command("plan")(looking.plan)
app.command("methods")(looking.methods)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"secateurs {version('secateurs')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Prune trained PyTorch networks into smaller, faster ones, with proof."""


def main() -> None:
    """Run the command line: 0 when done, 2 for what the user can mend."""
    try:
        app()
    except PruneError as error:
        err.print(f"secateurs: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
