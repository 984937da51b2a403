"""A model from its name: ours, torchvision's, timm's or the user's own factory."""

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
from secateurs.core.require import require
from secateurs.models.table import MODELS

_OTHERS = "torchvision:NAME, timm:NAME or package.module:factory"


def create(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build the model a name stands for, freshly initialised unless `pretrained`.

    Names are keys of `MODELS`, `torchvision:NAME`, `timm:NAME`, or
    `package.module:factory`, imported from the working directory too. A factory of the
    user's is called with those of `classes` (or `num_classes`), `in_channels` (or
    `in_chans`) and `pretrained` that were given and that it takes.

    Pretrained weights come with the source's own head; where `classes` asks for another
    one, everything but the head is pretrained.

    >>> create("lenet5", classes=7).fc2.out_features
    7

    Raises:
        UnknownNameError: nothing has that name; near matches are listed.
        PruneError: the factory failed, or pretrained weights do not exist.
    """
    if name in MODELS:
        if pretrained:
            raise PruneError(
                f"no pretrained weights come with {name!r}; train it, and load its checkpoint"
            )
        options = {"classes": classes, "in_channels": in_channels}
        return _built(name, MODELS[name].factory, _given(options))
    source, _, rest = name.partition(":")
    if not rest:
        raise UnknownNameError(f"unknown model {name!r}; {near(name, MODELS)}, or {_OTHERS}")
    make = {"torchvision": _torchvision, "timm": _timm}.get(source)
    if make:
        return make(rest, classes, in_channels, pretrained)
    return _own(name, classes, in_channels, pretrained)


def input_shape(name: str) -> tuple[int, ...]:
    """Say which single input, (channels, height, width), a model of that name expects.

    A factory of the user's may carry it as an attribute: `factory.input_shape = (3, 64, 64)`.

    Raises:
        UnknownNameError: nothing has that name.
        PruneError: a user's factory does not say.
    """
    if name in MODELS:
        return MODELS[name].input_shape
    source, _, rest = name.partition(":")
    if source == "torchvision" and rest:
        return _torchvision_shape(rest)
    if source == "timm" and rest:
        _timm_known(rest)
        config = require("timm", extra="timm").models.get_pretrained_cfg(rest)
        return tuple(config.input_size) if config else (3, 224, 224)
    if not rest:
        raise UnknownNameError(f"unknown model {name!r}; {near(name, MODELS)}, or {_OTHERS}")
    with _working_directory():
        shape = getattr(_find(name), "input_shape", None)
    if shape is None:
        raise PruneError(
            f"{name!r} does not say what it takes; name the data, "
            f"or set {rest}.input_shape = (channels, height, width)"
        )
    return tuple(shape)


def _torchvision(
    name: str, classes: int | None, in_channels: int | None, pretrained: bool
) -> nn.Module:
    import torchvision

    _torchvision_known(name)
    if in_channels not in (None, 3):
        raise PruneError(
            f"torchvision:{name} takes 3 channels, not {in_channels}; "
            f"repeat the channel, or use timm:NAME, which takes any number"
        )
    title = f"torchvision:{name}"
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    model = _built(
        title, torchvision.models.get_model, _given({"num_classes": classes}), name, weights=None
    )
    if weights is None:
        return model
    trained: dict[str, Any] = weights.get_state_dict(progress=True, check_hash=True)
    own = model.state_dict()
    # A head for other classes has another shape and stays freshly initialised.
    fits = {key: t for key, t in trained.items() if key in own and own[key].shape == t.shape}
    model.load_state_dict(fits, strict=False)
    return model


def _torchvision_known(name: str) -> None:
    import torchvision

    known = torchvision.models.list_models()
    if name not in known:
        raise UnknownNameError(f"torchvision has no model {name!r}; {near(name, known)}")


def _torchvision_shape(name: str) -> tuple[int, ...]:
    """Read the size from the default weights' own transforms; 224 where they have none."""
    import torchvision

    _torchvision_known(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    size = getattr(weights.transforms(), "crop_size", None) or [224]
    height, width = size[0], size[-1]
    clip = (16,) if name in torchvision.models.list_models(torchvision.models.video) else ()
    return (3, *clip, height, width)


def _timm(name: str, classes: int | None, in_channels: int | None, pretrained: bool) -> nn.Module:
    timm = require("timm", extra="timm")
    _timm_known(name)
    options = _given({"num_classes": classes, "in_chans": in_channels})
    return _built(f"timm:{name}", timm.create_model, options, name, pretrained=pretrained)


def _timm_known(name: str) -> None:
    timm = require("timm", extra="timm")
    if not timm.is_model(name):
        raise UnknownNameError(f"timm has no model {name!r}; {near(name, timm.list_models())}")


def _own(name: str, classes: int | None, in_channels: int | None, pretrained: bool) -> nn.Module:
    with _working_directory():
        factory = _find(name)
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
        return _built(name, factory, options)


def _find(name: str) -> Any:
    """Import what `package.module:factory` names; dots may follow the colon too."""
    path, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(error.name + ".")):
            raise UnknownNameError(
                f"no module {path!r} for model {name!r}; run where {path.split('.')[0]!r} can be "
                f"imported, or use a name of ours ({', '.join(sorted(MODELS))}) or {_OTHERS}"
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
def _working_directory() -> Iterator[None]:
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


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _built(
    name: str, factory: Callable[..., Any], options: dict[str, Any], *args: Any, **more: Any
) -> nn.Module:
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
