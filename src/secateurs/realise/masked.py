"""A model that stays masked while anything trains it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.layers import plain_module
from secateurs.core.mask import Mask
from secateurs.realise.hold import Keep, KeepBuffers, attach_, detach_, zero_
from secateurs.realise.slots import Slot, match, parametrizations, slots, stored

Gradients = Literal["masked", "dense"]


@contextmanager
def masked(
    model: nn.Module, mask: Mapping[str, Tensor], *, gradients: Gradients = "masked"
) -> Iterator["Held"]:
    """Change `model` so that masked entries are exactly zero in every call, until the block ends.

    Nothing a training loop does can bring them back: not momentum, not decoupled weight
    decay, not `load_state_dict`. Each call costs one multiplication per masked parameter.

    >>> layer = nn.Linear(2, 1)
    >>> with masked(layer, {"weight": torch.tensor([[True, False]])}) as held:
    ...     loss = layer(torch.ones(1, 2)).sum().backward()
    >>> layer.weight.grad, layer.weight[0, 1].item()
    (tensor([[1., 0.]]), 0.0)

    Parameters stay the objects they were, before, inside and after, so an optimizer may be
    built anywhere; inside, though, `model.parameters()` lists them in another order, and an
    optimizer's saved state should be loaded where it was built. Inside, `state_dict()` has
    torch's keys for parametrized modules (`conv.parametrizations.weight.original` and the
    mask itself) and may be loaded back inside; `held.state_dict()` has the plain ones.

    After the block parameters are plain again, masked entries exactly zero, and free to
    move. A deep copy taken inside stays masked by itself; `settle_(copy)` ends that.

    Tied parameters are masked wherever they are used. Masked buffers (batch-norm statistics)
    are zeroed after every pass in training mode. Blocks may nest; what all keep stays.

    Args:
        model: its training mode, device and dtype may change inside.
        mask: parameter or buffer name → bool, True stays. Others stay whole.
        gradients: `masked` entries get no gradient and are stored as zeros. With `dense`
            they keep their values and learn on behind the mask, so that a later
            `held.update` may bring them back (Guo et al. 2016, arXiv:1608.04493, eq. 4).

    Raises:
        UnknownNameError: the model has no parameter or buffer of that name.
        ShapeError: a mask has another shape than its tensor.
        StructureError: a parameter is computed by a parametrization that is not ours.
    """
    held = Held(model, gradients)
    try:
        held.update(mask)
        yield held
    finally:
        held._leave()


class Held:
    """The mask that a model is under; `masked` returns it."""

    def __init__(self, model: nn.Module, gradients: Gradients) -> None:
        """Begin with everything kept."""
        if gradients not in get_args(Gradients):
            raise UnknownNameError(f"unknown gradients {gradients!r}; use 'masked' or 'dense'")
        self._model = plain_module(model)
        self._ended = False
        self._dense = gradients == "dense"
        self._keeps: dict[str, tuple[Keep, Slot]] = {}
        self._hooks: dict[nn.Module, tuple[KeepBuffers, RemovableHandle]] = {}

    @property
    def mask(self) -> Mask:
        """The mask of this block, without those of blocks around it."""
        keeps = {name: keep.keep.bool() for name, (keep, _) in self._keeps.items()}
        for name, slot in slots(self._model).items():
            for module, attribute in slot.owners:
                hook = self._hooks[module][0] if module in self._hooks else None
                if slot.name == name and hook and attribute in hook.drop:
                    keeps[name] = ~hook.drop[attribute]
        return Mask(keeps)

    def update(self, mask: Mapping[str, Tensor]) -> None:
        """Replace the mask; parameters it does not name become whole.

        An entry that comes back starts from zero, or, with dense gradients, from the value
        it has reached behind the mask. Raises what `masked` raises, before any change.
        """
        if self._ended:
            raise PruneError("this mask's block has ended; open another with masked(model, mask)")
        found = match(self._model, mask)
        for hook, _ in self._hooks.values():
            hook.drop.clear()
        self._hold_parameters([(slot, keep) for slot, keep in found if not slot.is_buffer])
        for slot, keep in found:
            if slot.is_buffer:
                self._hold_buffer(slot, ~keep)

    def state_dict(self) -> dict[str, Tensor]:
        """Copy the model's parameters and buffers under their plain names, masks applied.

        It loads into a plain model of the same class.
        """
        plain = {key: value.clone() for key, value in self._model.state_dict().items()}
        for name, slot in slots(self._model).items():
            module, attribute = slot.owners[0]
            if parametrize.is_parametrized(module, attribute):
                path = name.removesuffix(attribute)
                inner = f"{path}parametrizations.{attribute}."
                plain = {key: value for key, value in plain.items() if not key.startswith(inner)}
                plain[name] = getattr(module, attribute).detach().clone()
        return plain

    def _hold_parameters(self, found: list[tuple[Slot, Tensor]]) -> None:
        named = {slot.name: keep for slot, keep in found}
        for slot, keep in found:
            if slot.name not in self._keeps:
                stage = Keep(torch.ones_like(keep), slot.tensor, dense=self._dense)
                self._keeps[slot.name] = (stage, slot)
                for module, attribute in slot.owners:
                    attach_(module, attribute, stage)
        for name, (stage, slot) in self._keeps.items():
            tensor = stored(*slot.owners[0])
            assert tensor is not None
            now = named.get(name, torch.ones_like(stage.keep, dtype=torch.bool))
            if not self._dense:
                # Entries that come back start from zero, not from where momentum took them.
                zero_(tensor, stage.keep == 0)
                zero_(tensor, ~now)
            stage.keep.copy_(now)

    def _hold_buffer(self, slot: Slot, drop: Tensor) -> None:
        for module, attribute in slot.owners:
            if module not in self._hooks:
                hook = KeepBuffers()
                self._hooks[module] = (hook, module.register_forward_hook(hook))
            self._hooks[module][0].drop[attribute] = drop
            self._hooks[module][0].zero_(module)

    def _leave(self) -> None:
        self._ended = True
        for stage, slot in self._keeps.values():
            for module, attribute in slot.owners:
                tensor = stored(module, attribute)
                if tensor is not None:
                    zero_(tensor, stage.keep == 0)
                detach_(module, attribute, stage)
        for module, (hook, handle) in self._hooks.items():
            hook.zero_(module)
            handle.remove()


def settle_(model: nn.Module) -> nn.Module:
    """Make a masked model plain, in place: zeros where masks were, parameters as they were.

    For a deep copy taken inside `masked`, which no block will ever end.
    """
    for module in list(model.modules()):
        for attribute in parametrizations(module):
            _settle_parameter_(module, attribute)
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, KeepBuffers):
                hook.zero_(module)
                del module._forward_hooks[key]
    return model


def _settle_parameter_(module: nn.Module, attribute: str) -> None:
    tensor = stored(module, attribute)
    if tensor is None:
        return
    for stage in list(parametrizations(module)[attribute]):
        assert isinstance(stage, Keep)
        zero_(tensor, stage.keep == 0)
        detach_(module, attribute, stage)


def apply_mask_(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """Zero the masked entries of the model's own parameters and buffers, and return it.

    Raises:
        UnknownNameError, ShapeError, StructureError: as `masked`.
    """
    for slot, keep in match(plain_module(model), mask):
        zero_(slot.tensor, ~keep)
    return model


def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """Copy the model with its masked entries set to zero.

    Raises:
        UnknownNameError, ShapeError, StructureError: as `masked`.
    """
    return apply_mask_(copy.deepcopy(model), mask)
