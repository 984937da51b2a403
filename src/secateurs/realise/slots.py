"""Where the named tensors of a model live, tied names and masks seen through."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from secateurs.core.errors import ShapeError, StructureError, UnknownNameError
from secateurs.core.layers import plain_name
from secateurs.core.mask import Mask
from secateurs.core.near import near
from secateurs.realise.hold import Keep


@dataclass(frozen=True)
class Slot:
    """One parameter or buffer and every attribute that holds it."""

    name: str
    """Its first plain dotted name."""
    tensor: Tensor
    owners: tuple[tuple[nn.Module, str], ...]
    """(module, attribute); several when the tensor is tied."""

    @property
    def is_buffer(self) -> bool:
        """Whether it is a buffer rather than a parameter."""
        return not isinstance(self.tensor, nn.Parameter)


def slots(model: nn.Module) -> dict[str, Slot]:
    """List every parameter and buffer by plain name; tied names lead to the same slot.

    What another library's parametrization computes is left out.
    """
    names: dict[int, list[str]] = {}
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    tensors: dict[int, Tensor] = {}
    for name, module, attribute in _attributes(model):
        tensor = stored(module, attribute)
        if tensor is None:
            continue
        tensors[id(tensor)] = tensor
        names.setdefault(id(tensor), []).append(name)
        held = owners.setdefault(id(tensor), [])
        if not any(m is module and a == attribute for m, a in held):
            held.append((module, attribute))
    made = {key: Slot(names[key][0], tensors[key], tuple(owners[key])) for key in tensors}
    return {name: made[key] for key, aliases in names.items() for name in aliases}


def match(model: nn.Module, mask: Mapping[str, Tensor]) -> list[tuple[Slot, Tensor]]:
    """Pair every tensor that a mask names with its mask; the masks of tied names meet by AND.

    Raises:
        UnknownNameError: the model has no parameter or buffer of that name.
        ShapeError: a mask has another shape than its tensor.
        StructureError: a parameter has no shape yet, or is computed by a parametrization
            that is not ours.
    """
    known = slots(model)
    found: dict[int, tuple[Slot, Tensor]] = {}
    for given, keep in Mask(mask).items():
        name = plain_name(given)  # inside a block, torch's own names are the parametrized ones
        if name not in known:
            raise _unknown(model, name, known)
        slot = known[name]
        if is_lazy(slot.tensor):
            raise StructureError(f"{name!r} has no shape yet; call the model once on an input")
        if keep.shape != slot.tensor.shape:
            raise ShapeError(
                f"the mask of {name!r} has shape {tuple(keep.shape)}, "
                f"its tensor {tuple(slot.tensor.shape)}; make the mask for this model"
            )
        keep = keep.to(slot.tensor.device)
        earlier = found.get(id(slot.tensor))
        found[id(slot.tensor)] = (slot, keep & earlier[1] if earlier else keep)
    return list(found.values())


def stored(module: nn.Module, attribute: str) -> Tensor | None:
    """Return the tensor behind an attribute; None where a parametrization of others makes it."""
    if not parametrize.is_parametrized(module, attribute):
        return getattr(module, attribute)  # type: ignore[no-any-return]
    stages = parametrizations(module)[attribute]
    return stages.original if all(isinstance(stage, Keep) for stage in stages) else None


def parametrizations(module: nn.Module) -> dict[str, parametrize.ParametrizationList]:
    """Return what parametrizes the attributes of a module; empty for a plain one."""
    if not parametrize.is_parametrized(module):
        return {}
    return dict(module.parametrizations.items())  # type: ignore[union-attr,operator]


def _attributes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield (plain name, module, attribute) of all parameters and buffers."""
    for path, module in model.named_modules(remove_duplicate=False):
        if "parametrizations" in path.split("."):
            continue
        plain = {**module._parameters, **module._buffers}
        present = [name for name, tensor in plain.items() if tensor is not None]
        for attribute in (*present, *parametrizations(module)):
            yield f"{path}.{attribute}" if path else attribute, module, attribute


def _unknown(
    model: nn.Module, name: str, known: Mapping[str, Slot]
) -> UnknownNameError | StructureError:
    if any(name == other for other, _, _ in _attributes(model)):
        return StructureError(
            f"{name!r} is computed by a parametrization (weight_norm or the like), so its "
            f"entries cannot be held at zero; make it plain first with "
            f"torch.nn.utils.parametrize.remove_parametrizations"
        )
    return UnknownNameError(
        f"the mask names {name!r}, which {type(model).__name__} does not have; {near(name, known)}"
    )
