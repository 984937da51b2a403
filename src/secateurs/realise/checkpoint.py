"""Checkpoints of a changed architecture: tensors as safetensors, the changes as JSON, no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, fx, nn
from torch.fx.graph_module import _assign_attr

from secateurs.core.errors import FileError, ShapeError
from secateurs.core.mask import Mask
from secateurs.core.whole import write_bytes
from secateurs.realise.attention import narrow_
from secateurs.realise.factored import Factored
from secateurs.realise.lowered import Lowered
from secateurs.realise.program import is_program
from secateurs.realise.program_json import dump_program, load_program
from secateurs.realise.record import Record, kind_of, record_of, remember_
from secateurs.realise.repair import replace
from secateurs.realise.shrink import all_tensors, copy_with

FORMAT, VERSION = "secateurs checkpoint", 1
_MASK = "mask/"


def save_checkpoint(
    stem: str | Path,
    model: nn.Module,
    *,
    spec: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    mask: Mask | None = None,
) -> tuple[Path, Path]:
    """Write `stem`.safetensors and `stem`.json and return both paths.

    Tied weights are written once. Either file appears whole or not at all.

    Args:
        stem: path without a suffix; its folder must exist.
        model: any module; a compacted one carries what was changed.
        spec: how the class is built, such as `torchvision:resnet50`, if known.
        recipe: anything JSON can hold that tells how the model was made.
        mask: which entries are kept, saved beside the weights.

    Raises:
        FileError: the folder does not exist, or a traced part cannot be written as JSON.
    """
    weights, sheet = _paths(stem)
    if not weights.parent.is_dir():
        raise FileError(f"folder {str(weights.parent)!r} does not exist; create it first")
    record = record_of(model)
    held, tied = _to_save(model, record)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": spec,
        "class": record.kind if record else kind_of(model),
        "parameters": {name: _entry(name, t, record) for name, t in held.items()},
        "tied": tied,
        "kept": {n: kept for n, kept in _indices(record).items() if n in held or n in tied}
        if record
        else {},
        "attributes": [list(edit) for edit in record.attributes] if record else [],
        "parts": {path: dump_program(part) for path, part in _programs(model)},
        "thin": stand_ins(model),
        "recipe": dict(recipe) if recipe else None,
    }
    blobs = {name: t.detach().cpu().contiguous().clone() for name, t in held.items()}
    blobs |= {_MASK + name: keep.cpu().contiguous() for name, keep in (mask or {}).items()}
    data = save_tensors(blobs, metadata={"format": "pt"})
    content["tensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(content, indent=1)
    write_bytes(weights, data)
    write_bytes(sheet, text.encode())
    return weights, sheet


def load_checkpoint(stem: str | Path, model: nn.Module) -> nn.Module:
    """Return a copy of a freshly built `model` that is the saved one: sizes, weights, parts.

    The tensors land on the devices of `model`, in the dtypes that were saved.

    Raises:
        FileError: a file is missing, damaged, or no checkpoint.
        ShapeError: `model` was not built as the saved one was; names the parameter.
    """
    content, blobs, where = _read(stem)
    fresh = all_tensors(model)
    saved = {n: t for n, t in blobs.items() if not n.startswith(_MASK)}
    parts: dict[str, Any] = content["parts"]
    thin: dict[str, Any] = content.get("thin", {})
    inside = tuple(path + "." if path else "" for path in (*parts, *thin))
    memo: dict[int, Any] = {}
    for name, entry in content["parameters"].items():
        if name not in saved:
            raise FileError(f"{where}: tensor {name!r} is listed but not stored; save it again")
        if name in fresh:
            _check_shape(where, name, entry, fresh[name])
            memo[id(fresh[name])] = like(fresh[name], saved[name])
        elif not (inside and name.startswith(inside)):
            raise ShapeError(
                f"{where}: parameter {name!r} does not exist in this {type(model).__name__}; "
                f"build the model as it was ({content['class']}, {content['model'] or 'no spec'})"
            )
    lost = [n for n in model.state_dict() if id(fresh[n]) not in memo]
    lost = [n for n in lost if not (inside and n.startswith(inside))]
    if lost:
        raise ShapeError(
            f"{where}: {lost[0]!r} of this {type(model).__name__} is not in the checkpoint "
            f"({len(lost)} missing); build the model as it was ({content['class']})"
        )
    small = copy_with(model, memo)
    gone = tuple(f"{path}." for path in thin)  # their layers tell their sizes themselves
    edit_(small, [e for e in content["attributes"] if not f"{e[0]}.".startswith(gone)], where)
    for path, nodes in parts.items():
        small = _put_part(small, path, nodes, saved, content["tied"], where)
    for path, plain in thin.items():
        small = put_stand_in(small, path, plain, saved, where)
    if content["kept"] or parts:
        remember_(small, _record(content))
    return small


def load_mask(stem: str | Path) -> Mask:
    """Read back the mask that was saved beside the weights; empty when there was none."""
    _, blobs, _ = _read(stem)
    return Mask({n.removeprefix(_MASK): t for n, t in blobs.items() if n.startswith(_MASK)})


def _paths(stem: str | Path) -> tuple[Path, Path]:
    path = Path(stem)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def _to_save(model: nn.Module, record: Record | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Choose what is saved: the state, and whatever else was cut; tied tensors once."""
    found = all_tensors(model)
    names = [*model.state_dict(), *(record.kept if record else ())]
    held: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name not in found:
            continue
        tensor = found[name]
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            held[name] = tensor
    return held, tied


def _entry(name: str, tensor: Tensor, record: Record | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
    }
    if record and tuple(tensor.shape) != record.shapes.get(name, tuple(tensor.shape)):
        entry["was"] = list(record.shapes[name])
    return entry


def _indices(record: Record) -> dict[str, dict[str, Any]]:
    """Write kept indices as lists; one list per group where groups differ."""
    return {
        name: {
            str(dim): keep.nonzero().squeeze(1).tolist()
            if keep.dim() == 1
            else [row.nonzero().squeeze(1).tolist() for row in keep]
            for dim, keep in keeps.items()
        }
        for name, keeps in record.kept.items()
    }


def _record(content: Mapping[str, Any]) -> Record:
    shapes = {
        name: tuple(entry.get("was", entry["shape"]))
        for name, entry in content["parameters"].items()
    }
    shapes |= {alias: shapes[name] for alias, name in content["tied"].items()}
    kept: dict[str, dict[int, Tensor]] = {}
    for name, dims in content["kept"].items():
        for dim, indices in dims.items():
            kept.setdefault(name, {})[int(dim)] = _keep(shapes[name], int(dim), indices)
    attributes = tuple(tuple(edit) for edit in content["attributes"])
    return Record(content["class"], shapes, kept, attributes)


def _keep(shape: tuple[int, ...], dim: int, indices: list[Any]) -> Tensor:
    if indices and isinstance(indices[0], list):
        keep = torch.zeros(len(indices), shape[dim], dtype=torch.bool)
        for row, kept in zip(keep, indices, strict=True):
            row[kept] = True
        return keep
    keep = torch.zeros(shape[dim], dtype=torch.bool)
    keep[indices] = True
    return keep


def _programs(model: nn.Module) -> list[tuple[str, fx.GraphModule]]:
    found: list[tuple[str, fx.GraphModule]] = []
    for path, module in model.named_modules():
        if is_program(module) and not any(path.startswith(p + ".") or p == "" for p, _ in found):
            assert isinstance(module, fx.GraphModule)
            found.append((path, module))
    return found


def _read(stem: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    weights, sheet = _paths(stem)
    for path in (weights, sheet):
        if not path.is_file():
            raise FileError(
                f"{str(path)!r} does not exist; a checkpoint is a pair of files, "
                f"{weights.name} and {sheet.name}"
            )
    where = str(sheet)
    try:
        content = json.loads(sheet.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise FileError(f"{where} is not valid JSON ({error}); save the model again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(f"{where}: field 'format' is not {FORMAT!r}; this is another kind of file")
    if content.get("version") != VERSION:
        raise FileError(
            f"{where}: field 'version' is {content.get('version')}, this release reads {VERSION}; "
            "install the release that wrote it"
        )
    _check_fields(content, where)
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != content["tensors"]["sha256"]:
        raise FileError(
            f"{str(weights)!r} is damaged or belongs to another {sheet.name}: its sha256 is not "
            "the one in field 'tensors'; save the model again, or copy both files together"
        )
    try:
        return content, load_tensors(data), where
    except SafetensorError as error:
        raise FileError(f"{str(weights)!r} is no safetensors file ({error})") from error


_FIELDS = {
    "class": str,
    "parameters": dict,
    "tied": dict,
    "kept": dict,
    "attributes": list,
    "parts": dict,
    "tensors": dict,
}


def _check_fields(content: Mapping[str, Any], where: str) -> None:
    for field, kind in _FIELDS.items():
        if not isinstance(content.get(field), kind):
            raise FileError(
                f"{where}: field {field!r} is missing or no {kind.__name__}; save the model again"
            )


def _check_shape(where: str, name: str, entry: Mapping[str, Any], fresh: Tensor) -> None:
    was = tuple(entry.get("was", entry["shape"]))
    if tuple(fresh.shape) != was:
        raise ShapeError(
            f"{where}: {name!r} was cut from shape {was}, but this model has "
            f"{tuple(fresh.shape)}; build the model with the arguments it was saved with"
        )


def like(fresh: Tensor, saved: Tensor) -> Tensor:
    """Return a saved tensor as what a fresh model holds: a parameter, or a buffer."""
    saved = saved.to(fresh.device)
    if not isinstance(fresh, nn.Parameter):
        return saved
    parameter = nn.Parameter(saved, requires_grad=fresh.requires_grad)
    parameter.__dict__.update(fresh.__dict__)
    return parameter


def edit_(model: nn.Module, edits: list[Any], where: str) -> None:
    """Set the attributes that name sizes, each checked to be as it was before the cut.

    Raises:
        ShapeError: an attribute is not there, or is another.
    """
    for path, name, old, new in edits:
        try:
            module = model.get_submodule(path)
            found = type(module).__name__ if name == "__class__" else getattr(module, name)
        except AttributeError as error:
            raise ShapeError(
                f"{where}: attribute {name!r} of {path!r} does not exist in this model; "
                "build the model as it was"
            ) from error
        wanted = type(found)(old) if isinstance(found, list | tuple) else old
        if found != wanted:
            raise ShapeError(
                f"{where}: attribute {name!r} of {path!r} is {found}, but was {old} when the "
                "model was cut; build the model with the arguments it was saved with"
            )
        if name == "__class__":
            assert isinstance(module, nn.MultiheadAttention)
            narrow_(path, module)
        else:
            setattr(module, name, type(found)(new) if isinstance(found, list | tuple) else new)


def stand_ins(model: nn.Module) -> dict[str, Any]:
    """Tell of the layers that stand where a convolution was: path → all but their tensors."""
    kinds = (Lowered, Factored)
    return {p: m.to_json() for p, m in model.named_modules() if isinstance(m, kinds)}


def put_stand_in(
    model: nn.Module, path: str, plain: Mapping[str, Any], saved: Mapping[str, Tensor], where: str
) -> nn.Module:
    """Put a layer of which `stand_ins` told where its convolution was, with its tensors.

    Raises:
        FileError: a value or a tensor is missing, or does not fit the others.
    """
    prefix = path + "." if path else ""
    kind = Factored if "convolutions" in plain else Lowered
    try:
        old = model.get_submodule(path)
        device = next((t.device for t in all_tensors(old).values()), torch.device("cpu"))
        own = {n[len(prefix) :]: t.to(device) for n, t in saved.items() if n.startswith(prefix)}
        layer = kind.from_json(plain, own)
    except KeyError as error:
        raise FileError(
            f"{where}: {error} of the thin layer {path!r} is missing; save it again"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise FileError(
            f"{where}: the thin layer {path!r} cannot be built: {error}; save it again"
        ) from error
    layer.train(old.training)
    replace(model, path, layer)
    return model if path else layer


def _put_part(
    model: nn.Module,
    path: str,
    nodes: list[dict[str, Any]],
    saved: Mapping[str, Tensor],
    tied: Mapping[str, str],
    where: str,
) -> nn.Module:
    """Put a traced part where its module was; its tensors are those already loaded."""
    held = {**saved, **{alias: saved[name] for alias, name in tied.items() if name in saved}}
    held = {**held, **all_tensors(model)}
    prefix = path + "." if path else ""
    own = {n[len(prefix) :]: t for n, t in held.items() if n.startswith(prefix)}
    old = model.get_submodule(path)
    part = load_program(nodes, own, where)
    have = all_tensors(part)
    for name, tensor in own.items():  # what the program does not read is held all the same
        if name not in have and (prefix + name in saved or prefix + name in tied):
            _assign_attr(tensor, part, name)
    part.train(old.training)
    replace(model, path, part)
    return model if path else part
