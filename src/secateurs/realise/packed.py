"""A model out of one packed file: what the file says of it, and how it is built again."""

import copy
import os
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateurs.core.errors import FileError, PruneError, ShapeError
from secateurs.models.create import create
from secateurs.realise.attributes import Edit
from secateurs.realise.checkpoint import edit_, like, put_stand_in, stand_ins
from secateurs.realise.coding.container import Contents, read
from secateurs.realise.record import record_of
from secateurs.realise.shrink import all_tensors, copy_with


def about(model: nn.Module, spec: str | None, **options: int | None) -> dict[str, Any]:
    """Return what a packed file says of its model, so that `load` can build it again.

    Args:
        model: as it is packed; a compacted one tells which sizes were changed.
        spec: a name for `create`, if there is one.
        options: `classes` and `in_channels` for `create`; left out where they go without
            saying, for they take bytes.
    """
    found: dict[str, Any] = {} if spec is None else {"model": spec}
    record = record_of(model)
    if any(isinstance(part, fx.GraphModule) for part in model.modules()):
        found["traced"] = True
    elif record is not None:
        rest = [list(edit) for edit in record.attributes if not _follows(model, edit)]
        found |= {"attributes": rest} if rest else {}
    if thin := stand_ins(model):
        found["thin"] = thin
    shapes = record.shapes if record else {n: tuple(t.shape) for n, t in all_tensors(model).items()}
    if spec is not None and not _default(spec, shapes):
        found |= {name: value for name, value in options.items() if value is not None}
    return found


def held(model: nn.Module) -> dict[str, Tensor]:
    """Return what a packed file must hold: the state, and what else was cut."""
    record, state = record_of(model), model.state_dict()
    cut = record.kept if record else ()
    every = all_tensors(model)
    return {**state, **{name: every[name] for name in cut if name in every and name not in state}}


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Return the model that a .secz file holds, in evaluation mode; bit for bit as it was packed.

    Nothing is unpickled, and a file names no code but a model for `create`.

    Args:
        path: the file.
        model: built as the packed one was before anything was cut, where the file names
            none; not changed.

    Raises:
        FileError: the file is missing or damaged, names no model, or holds a traced program.
        ShapeError: `model` was not built as the packed one was.
    """
    contents, where = read(path), str(path)
    if contents.recipe.get("traced"):
        raise FileError(
            f"{where} holds the tensors of a traced program, not the program; load the "
            "checkpoint that was written beside it with load_checkpoint"
        )
    return _filled(_fresh(contents, where) if model is None else model, contents, where).eval()


def _fresh(contents: Contents, where: str) -> nn.Module:
    recipe = contents.recipe
    if not isinstance(recipe.get("model"), str):
        raise FileError(f"{where} does not name its model; pass load(FILE, model)")
    options = {k: v for k, v in recipe.items() if k in ("classes", "in_channels")}
    try:
        return create(recipe["model"], **options)
    except PruneError as error:
        raise FileError(f"{where}: {error}; or pass load(FILE, model)") from error


def _filled(model: nn.Module, contents: Contents, where: str) -> nn.Module:
    state, thin = contents.state(), contents.recipe.get("thin") or {}
    if not isinstance(thin, dict):
        raise FileError(f"{where}: field 'thin' is no table of layers; pack the model again")
    if thin:
        model = copy.deepcopy(model)
    for path, plain in thin.items():
        model = put_stand_in(model, path, plain, state, where)
    fresh = all_tensors(model)
    if missing := [n for n in model.state_dict() if n not in state]:
        raise ShapeError(f"{where} has no {missing[0]!r}; build the model as it was packed")
    if unknown := [n for n in state if n not in fresh]:
        raise ShapeError(f"{where} holds {unknown[0]!r}, unknown to this {type(model).__name__}")
    edits = contents.recipe.get("attributes", [])
    for name, tensor in state.items():
        if tensor.dim() != fresh[name].dim():
            raise ShapeError(
                f"{where}: {name!r} is {tuple(tensor.shape)} in the file and "
                f"{tuple(fresh[name].shape)} in the model; build it as it was packed"
            )
    made = copy_with(model, {id(fresh[name]): like(fresh[name], t) for name, t in state.items()})
    for module in made.modules():
        for attribute, dim in _SIZES.get(type(module), {}).items():
            if getattr(module, "groups", 1) == 1 and isinstance(module.weight, Tensor):
                setattr(module, attribute, module.weight.shape[dim])
    edit_(made, edits, where)
    return made


_CONV, _NORM = {"out_channels": 0, "in_channels": 1}, {"num_features": 0}
_SIZES: dict[type[nn.Module], dict[str, int]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONV),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _NORM),
    nn.Linear: {"out_features": 0, "in_features": 1},
}
"""Attributes that follow from the weight's shape, and from which axis: they take no bytes."""


def _follows(model: nn.Module, edit: Edit) -> bool:
    path, name, _, _ = edit
    module = model.get_submodule(path)
    plain = getattr(module, "groups", 1) == 1 and isinstance(module.weight, Tensor)
    return name in _SIZES.get(type(module), {}) and plain


def _default(spec: str, shapes: Any) -> bool:
    """Tell whether a model of that name has these shapes without being told more."""
    try:
        with torch.device("meta"):
            plain = create(spec)
    except Exception:  # a user's factory may not know the device; then more is said
        return False
    return {n: tuple(t.shape) for n, t in all_tensors(plain).items()} == dict(shapes)
