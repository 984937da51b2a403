"""What surgery made of a model, carried by the model itself, so it can be saved at any time."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from secateurs.realise.attributes import Edit
from secateurs.realise.shrink import Keep

_KEY = "secateurs_record"


@dataclass(frozen=True)
class Record:
    """Everything between the class as built and the model as it is now."""

    kind: str
    """The class as built, `package.module.Name`."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shapes of parameters and buffers as built, under all their names."""
    kept: Mapping[str, Mapping[int, Tensor]]
    """Parameter → dim → the indices of the original that are left, bool."""
    attributes: tuple[Edit, ...]


def record_of(model: nn.Module) -> Record | None:
    """Return what was done to a model, or None for one that was never cut."""
    holder = model.meta if isinstance(model, fx.GraphModule) else vars(model)
    found = holder.get(_KEY)
    return found if isinstance(found, Record) else None


def remember_(model: nn.Module, record: Record) -> None:
    """Let a model carry its record; its state_dict is unaffected."""
    if isinstance(model, fx.GraphModule):
        model.meta[_KEY] = record
    else:
        vars(model)[_KEY] = record


def kind_of(model: nn.Module) -> str:
    """Name a model's class, `package.module.Name`."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def after(
    before: Record | None,
    kind: str,
    shapes: Mapping[str, tuple[int, ...]],
    kept: Mapping[str, Keep],
    edits: list[Edit],
) -> Record:
    """Join one more cut to what was done before."""
    if before is None:
        return Record(kind, dict(shapes), {n: dict(k) for n, k in kept.items()}, tuple(edits))
    joined: dict[str, dict[int, Tensor]] = {n: dict(k) for n, k in before.kept.items()}
    for name, keeps in kept.items():
        if name not in before.shapes:
            continue  # a constant of a traced part, which the class as built does not have
        for dim, keep in keeps.items():
            old = joined.setdefault(name, {}).get(dim)
            joined[name][dim] = keep if old is None else _within(old, keep)
    attributes = {(path, name): (old, new) for path, name, old, new in before.attributes}
    for path, name, old, new in edits:
        first = attributes.get((path, name), (old, None))[0]
        attributes[(path, name)] = (first, new)
    edits = [(path, name, old, new) for (path, name), (old, new) in attributes.items()]
    return Record(before.kind, before.shapes, joined, tuple(edits))


def _within(old: Tensor, keep: Tensor) -> Tensor:
    """Say which of the original indices are left, when `keep` chose among those `old` left."""
    joined = torch.zeros_like(old)
    joined[old] = keep.to(old.device).flatten()
    return joined
