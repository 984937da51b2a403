"""Training state on disk, one file, without pickle: weights, optimizer, epoch, history."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import FileError
from secateurs.recovery.history import History

CHECKPOINT = "training.safetensors"
"""Name of the file in a run's folder."""
_KIND = "secateurs.training/1"


def save_training(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    fingerprint: str,
) -> None:
    """Write the state after an epoch; the old file stays whole until the new one is.

    Raises:
        FileError: the file cannot be written, or the model's state holds something other
            than tensors.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise FileError(
                f"cannot save {name!r} of the model's state: it is a {type(value).__name__}; "
                "keep state in buffers, or train without a folder"
            )
        tensors[f"model/{name}"] = value
    plain: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            name = f"optimizer/{index}/{key}"
            (tensors if isinstance(value, Tensor) else plain)[name] = value
    # Tied tensors share memory, which the format refuses; each gets its own copy.
    tensors = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    about = {
        "kind": _KIND,
        "checksum": _checksum(tensors),
        "fingerprint": fingerprint,
        "history": history.to_json(),
        "optimizer": plain,
    }
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"secateurs": json.dumps(about)})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise FileError(
            f"cannot write {str(path)!r} ({error}); free some space or choose another folder"
        ) from error


def load_training(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> History:
    """Put a saved state into `model` and `optimizer` in place and return its history.

    Nothing is changed unless everything fits.

    Raises:
        FileError: the file is damaged, or of another model or other settings.
    """
    about, tensors = _read(path)
    if about["fingerprint"] != fingerprint:
        raise FileError(
            f"{str(path)!r} holds a run with other settings ({_differences(about, fingerprint)}); "
            "choose another folder, or delete the file to start again"
        )
    saved = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
    state = model.state_dict()
    _check_fit(path, state, saved)
    moments: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *about["optimizer"].items()):
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            moments.setdefault(int(index), {})[key] = value
    history = History.from_json(about["history"])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    with torch.no_grad():
        for name, target in state.items():
            target.copy_(saved[name])
    return history


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("secateurs", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(
            f"{str(path)!r} cannot be read as a training checkpoint ({error}); "
            "delete it to start again"
        ) from error
    if about.get("kind") != _KIND:
        raise FileError(
            f"{str(path)!r} is not a training checkpoint of this version; choose another folder"
        )
    if about["checksum"] != _checksum(tensors):
        raise FileError(
            f"{str(path)!r} is damaged: its checksum does not match; delete it to start again"
        )
    return about, tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    crc = 0
    for name in sorted(tensors):
        raw = tensors[name].reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(raw.tobytes(), crc)
    return crc


def _check_fit(path: Path, state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    for name in (*state, *saved):
        here = tuple(state[name].shape) if name in state else "nothing"
        there = tuple(saved[name].shape) if name in saved else "nothing"
        if here != there:
            raise FileError(
                f"{str(path)!r} holds another model: {name!r} is {there} there and {here} here; "
                "choose another folder, or delete the file to start again"
            )


def _differences(about: Mapping[str, Any], fingerprint: str) -> str:
    there, here = json.loads(about["fingerprint"]), json.loads(fingerprint)
    return ", ".join(
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    )
