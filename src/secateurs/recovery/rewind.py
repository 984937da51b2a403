"""Back to weights of an earlier moment, or to none at all."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.errors import ShapeError, StructureError
from secateurs.core.layers import plain_name
from secateurs.recovery.seeds import forked

_STAGE = re.compile(r"parametrizations\.[^.]+\.\d+\.")
"""Tensors of a parametrization itself, such as a mask."""


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the model's parameters and buffers by plain name.

    Inside `masked(...)` the names are those of the bare model, and the values those that
    lie under the mask, so a snapshot fits before, inside and after.
    """
    return {name: value.detach().clone() for name, value in _plain(model).items()}


def rewind_(model: nn.Module, earlier: Mapping[str, Tensor]) -> None:
    """Put a snapshot's values back into `model` in place; a mask that holds goes on holding.

    Source: Frankle & Carbin 2019, arXiv:1803.03635, strategy 1, step 4 (weights go back,
    the mask stays).

    Raises:
        ShapeError: the snapshot is of another model; nothing was changed.
    """
    now = _plain(model)
    for name in (*now, *earlier):
        here = tuple(now[name].shape) if name in now else "nothing"
        there = tuple(earlier[name].shape) if name in earlier else "nothing"
        if here != there:
            raise ShapeError(
                f"cannot rewind {name!r}: it is {there} in the snapshot and {here} in the model; "
                "take the snapshot from the same model"
            )
    with torch.no_grad():
        for name, value in now.items():
            value.copy_(earlier[name])


def reinitialise_(model: nn.Module, seed: int) -> None:
    """Draw all weights of `model` anew in place, by each module's own `reset_parameters`.

    The baseline of training the small network from scratch (Liu et al. 2019,
    arXiv:1810.05270). Masks go on holding; the random state returns after.

    Raises:
        StructureError: a parameter belongs to a module that cannot reset itself; nothing
            was changed.
    """
    _check(model)
    with forked(), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            _reset(module)


def _check(model: nn.Module) -> None:
    for path, module in model.named_modules():
        own = [*module.named_parameters(recurse=False)]
        if isinstance(module, parametrize.ParametrizationList):
            if not hasattr(module, "original"):
                raise StructureError(
                    f"cannot draw {path!r} anew: its parametrization keeps several tensors; "
                    "remove it first with torch.nn.utils.parametrize.remove_parametrizations"
                )
            continue
        if not own:
            continue
        if _resetter(module) is None:
            name = f"{path}.{own[0][0]}".lstrip(".")
            raise StructureError(
                f"cannot draw {name!r} anew: {type(module).__name__} has no reset_parameters(); "
                "add one, or build a new model and compact it with the same mask"
            )


def _resetter(module: nn.Module) -> Callable[[], None] | None:
    """Return what draws a module's weights; torch's attention hides it behind a dash."""
    for name in ("reset_parameters", "_reset_parameters"):
        found = getattr(module, name, None)
        if callable(found):
            return cast(Callable[[], None], found)
    return None


def _reset(module: nn.Module) -> None:
    reset = _resetter(module)
    if reset is None:
        return
    if not parametrize.is_parametrized(module):
        reset()
        return
    # Resetting writes into the masked value, which is computed; the original lies below.
    bare = _bare(module)
    _reset(bare)
    for name, value in _plain(module).items():
        value.copy_(bare.state_dict()[name])


def _bare(module: nn.Module) -> nn.Module:
    """Copy a parametrized module without its parametrizations.

    torch's `remove_parametrizations` would take the attribute from the class, which a copy
    shares with the module it was made from.
    """
    bare = copy.deepcopy(module)
    stages = bare._modules.pop("parametrizations")
    assert isinstance(stages, nn.ModuleDict)
    bare.__class__ = type(module).__bases__[0]
    for name, stage in stages.items():
        bare.register_parameter(name, stage.get_parameter("original"))
    return bare


def _plain(model: nn.Module) -> dict[str, Tensor]:
    """Return the live parameters and buffers by bare name, without the masks' own buffers."""
    named = {plain_name(name): value for name, value in model.state_dict().items()}
    return {name: value for name, value in named.items() if not _STAGE.search(name)}
