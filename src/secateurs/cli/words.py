"""Words of a command line turned into targets and a method's options."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from secateurs.core.errors import BudgetError, FileError, PruneError, UnknownNameError
from secateurs.methods.table import METHODS, options_of
from secateurs.methods.task import Target
from secateurs.recovery.settings import Trainer

MultipleOf = Annotated[
    int, typer.Option(min=1, help="Keep multiples of so many units of a site: 8 for tensor cores.")
]


Amounts = Mapping[str, float | None]
"""What options of a command line ask for, by name; None for those that were left out."""


def amount(
    method: str, shares: Amounts, sizes: Amounts, multiple_of: int = 1, plan: Path | None = None
) -> tuple[str, Target, list[str]]:
    """Return method, target and options as words, from what says how much stays.

    Args:
        method: that was asked for; a plan and a file's size have methods of their own.
        shares: `density`, `macs` and `params`: fractions that stay.
        sizes: `bytes`, `ratio` and `max_drop`: how small the packed file becomes.
        multiple_of: keep multiples of so many units of a site.
        plan: file of a plan to carry out.

    Raises:
        BudgetError: nothing says how much stays, or several things do.
    """
    step = multiple_of if multiple_of > 1 else None
    if plan:
        target = free_target("--plan", {**shares, **sizes, "multiple_of": step})
        return "planned", target, [f"plan={plan}"]
    method, words = sized(method, sizes)
    if any(x is not None for x in sizes.values()) and shares["density"] is None:
        return method, free_target("a file's size", {**shares, "multiple_of": step}), words
    return method, target_of(**shares, multiple_of=multiple_of), words


def target_of(
    density: float | None, macs: float | None, params: float | None, multiple_of: int = 1
) -> Target:
    """Return the one target that was given.

    Raises:
        BudgetError: none was, or several.
    """
    given = {"density": density, "macs": macs, "params": params}
    asked = {kind: value for kind, value in given.items() if value is not None}
    if len(asked) != 1:
        raise BudgetError(
            f"{' and '.join(f'--{k}' for k in asked) or 'no target'} given; "
            "pass exactly one of --density, --macs, --params"
        )
    (kind, value), *_ = asked.items()
    return Target(kind, value, multiple_of)  # type: ignore[arg-type]


def free_target(by: str, given: Amounts) -> Target:
    """Return the target of a run whose amount something else says: a plan, or a file's size.

    Args:
        by: what says it.
        given: options of a target, by name; None for those that were left out, as all must be.

    Raises:
        BudgetError: one is there.
    """
    if asked := [f"--{name.replace('_', '-')}" for name, x in given.items() if x is not None]:
        raise BudgetError(f"{by} says how much stays; leave {' and '.join(asked)} out")
    return Target("density", 1.0)


def new_file(out: Path) -> None:
    """Raise `FileError` unless a file can be made there without taking another's place."""
    if out.exists() or not out.parent.is_dir():
        why = "is there already" if out.exists() else "lies in no folder that exists"
        raise FileError(f"{str(out)!r} {why}; choose another --out")


def model_of(source: Path) -> tuple[Path, str | None]:
    """Split RUN, or a model's file RUN/LABEL.safetensors, into the run's folder and the label."""
    if source.is_dir() or not source.exists():
        return source, None
    return source.parent, source.name.removesuffix(".safetensors").removesuffix(".secz")


def only(source: Path, labels: Iterable[str]) -> str:
    """Return the label of the one pruned model that a run holds.

    Raises:
        FileError: there are several.
    """
    one, *others = labels
    if others:
        names = ", ".join(f"{name}.safetensors" for name in (one, *others))
        raise FileError(f"{str(source)!r} holds {1 + len(others)} pruned models; name one: {names}")
    return one


def control_of(word: str | None, dense: Trainer) -> Trainer | None:
    """Return how a control is trained: as the dense model was; None for no control.

    Raises:
        UnknownNameError: no such control.
    """
    if word not in (None, "scratch"):
        raise UnknownNameError(f"unknown control {word!r}; use scratch, or leave --control out")
    return dense if word else None


def sized(method: str, sizes: Amounts) -> tuple[str, list[str]]:
    """Return the method that meets a size of a file, and its options as words.

    Raises:
        BudgetError: several sizes are asked for, or of a method that knows none.
    """
    asked = {name: value for name, value in sizes.items() if value is not None}
    options = [f"--{name.replace('_', '-')}" for name in asked]
    if not asked:
        return method, []
    if len(asked) > 1:
        raise BudgetError(f"{' and '.join(options)} are several targets; pass one of them")
    if method not in ("magnitude", "deep_compression"):
        raise BudgetError(f"{options[0]} is a target of deep_compression, not of {method}")
    # How much accuracy may drop is for the search over files, not for one of them.
    words = [f"{name}={value}" for name, value in asked.items() if name != "max_drop"]
    return "deep_compression", words


def options(method: str, granularity: str, words: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE words as the types of the method's own defaults."""
    known = options_of(METHODS[method]) if method in METHODS else {}
    options: dict[str, Any] = {"granularity": granularity} if "granularity" in known else {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise PruneError(f"--option {word!r} is not NAME=VALUE; write for example rounds=3")
        default = known[name].default if name in known else None
        options[name] = _read(name, value, default)
    return options


def _read(name: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise PruneError(f"option {name} is {value!r}; use true or false")
        return value.lower() == "true"
    if isinstance(default, tuple):
        return tuple(filter(None, value.split(",")))
    if isinstance(default, (int, float)):
        try:
            return type(default)(value)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise PruneError(f"option {name} is {value!r}; use {kind}") from None
    return value
