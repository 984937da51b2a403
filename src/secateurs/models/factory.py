"""Models of the user's own, by `package.module:factory`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.near import near


def own_model(
    name: str, classes: int | None, in_channels: int | None, pretrained: bool
) -> nn.Module:
    """Call a factory of the user's with the options it takes; see `create`."""
    with working_directory():
        factory = find(name)
        if isinstance(factory, nn.Module):
            return factory
        if not callable(factory):
            raise PruneError(f"{name!r} is a {type(factory).__name__}, not a function or class")
        takes = _parameters(factory)
        asked = {("classes", "num_classes"): classes, ("in_channels", "in_chans"): in_channels}
        options: dict[str, Any] = {}
        for spellings, value in asked.items():
            found = [s for s in spellings if s in takes]
            if value is not None and found:
                options[found[0]] = value
        if pretrained:
            if "pretrained" not in takes:
                raise PruneError(f"{name!r} takes no argument `pretrained`; leave it out")
            options["pretrained"] = True
        return built(name, factory, options)


def find(name: str) -> Any:
    """Import what `package.module:factory` names; dots may follow the colon too."""
    path, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(error.name + ".")):
            raise UnknownNameError(
                f"no module {path!r} for model {name!r}; run where {path.split('.')[0]!r} can be "
                f"imported, or name another model"
            ) from None
        raise PruneError(f"importing {path!r} failed: {_said(error)}") from error
    except Exception as error:
        raise PruneError(f"importing {path!r} failed: {_said(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
            raise UnknownNameError(f"{path!r} has no {attribute!r}; {near(attribute, known)}")
        found = getattr(found, part)
    return found


@contextmanager
def working_directory() -> Iterator[None]:
    """Let imports inside see the working directory, as `python -m` would."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _parameters(factory: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return set()


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Drop the options that are None."""
    return {key: value for key, value in options.items() if value is not None}


def built(
    name: str, factory: Callable[..., Any], options: dict[str, Any], *args: Any, **more: Any
) -> nn.Module:
    """Call a factory; raise `PruneError` when it fails or returns no module."""
    try:
        model = factory(*args, **options, **more)
    except Exception as error:
        asked = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no arguments"
        raise PruneError(f"building {name!r} with {asked} failed: {_said(error)}") from error
    if not isinstance(model, nn.Module):
        raise PruneError(f"{name!r} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
