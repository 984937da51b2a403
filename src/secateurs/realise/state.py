"""Load a dense model's weights from a file, without unpickling anything."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from secateurs.core.errors import FileError, ShapeError

_NESTED = ("state_dict", "model_state_dict", "model", "net")


def load_state(model: nn.Module, path: str | Path) -> None:
    """Load a plain state dict into `model`, in place: .safetensors, or .pt and .pth as data.

    Pickled files are read with `weights_only=True`, so they cannot run code. A state dict
    nested under `state_dict` or `model`, or saved from DataParallel, is unwrapped.

    Raises:
        FileError: the file is missing, damaged, or holds no state dict.
        ShapeError: it does not fit; names what is missing, unknown or of another shape.
    """
    path = Path(path)
    state = read_state(path)
    wanted = model.state_dict()
    tied = {n for n in wanted if n not in dict(model.named_parameters())}
    missing = [n for n in wanted if n not in state and not (n in tied and _twin(model, n, state))]
    unknown = [n for n in state if n not in wanted]
    wrong = [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    if wrong:
        name = wrong[0]
        raise ShapeError(
            f"{str(path)!r} does not fit this {type(model).__name__}: {name!r} is "
            f"{tuple(state[name].shape)} in the file and {tuple(wanted[name].shape)} in the model "
            f"({len(wrong)} such); build the model with the file's sizes"
        )
    if missing or unknown:
        raise ShapeError(
            f"{str(path)!r} does not fit this {type(model).__name__}: missing "
            f"{_few(missing)}, unknown {_few(unknown)}; is it another model's file?"
        )
    model.load_state_dict(state, strict=False)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict that a file holds, by plain names.

    Raises:
        FileError: the file is missing, damaged, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{str(path)!r} does not exist; pass a .safetensors, .pt or .pth file")
    return _unwrapped(_read(path), path)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise FileError(
                f"{str(path)!r} is no safetensors file, or damaged ({error})"
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise FileError(
            f"{str(path)!r} cannot be read as plain weights; save "
            "model.state_dict() as .safetensors, or with torch.save"
        ) from error


def _unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise FileError(f"{str(path)!r} holds no state dict; save model.state_dict()")
    state = dict(found)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): t for name, t in state.items()}
    return state


def _twin(model: nn.Module, name: str, state: Mapping[str, Tensor]) -> bool:
    """Tell whether a tied weight's other name is in the file."""
    every = dict(model.named_parameters(remove_duplicate=False))
    return any(t is every.get(name) and other in state for other, t in every.items())


def _few(names: list[str]) -> str:
    return (
        f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        if names
        else "none"
    )
