"""Put a mask between a stored parameter and the module that uses it, and take it out again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORDER = "_secateurs_order"


class Keep(nn.Module):
    """A parametrization: what a module sees is the stored weight times `keep`.

    `keep` has the weight's dtype, because multiplying by a bool tensor, or choosing with
    `where`, takes two to six times as long as one multiplication.
    """

    keep: Tensor

    def __init__(self, keep: Tensor, like: Tensor, *, dense: bool) -> None:
        """Hold bool `keep` for a weight; `dense` lets gradients pass masked entries."""
        super().__init__()
        self.dense = dense
        self.register_buffer("keep", keep.to(like.device, like.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """Zero what is masked."""
        if self.dense:
            return _StraightThrough.apply(weight, self.keep)  # type: ignore[no-any-return]
        return weight * self.keep

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Store a value that is assigned to the parametrized attribute as it is."""
        return weight


class _StraightThrough(torch.autograd.Function):
    """weight · keep, whose gradient reaches the masked entries too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, keep: Tensor) -> Tensor:
        return weight * keep

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class KeepBuffers:
    """A forward hook that keeps the masked entries of a module's buffers at zero.

    Buffers are written in place by the forward pass (batch-norm statistics), which a
    parametrization would hide from them. So they are zeroed after each training step's pass.
    """

    def __init__(self) -> None:
        """Begin with no buffers."""
        self.drop: dict[str, Tensor] = {}

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Zero what the pass has written to masked entries."""
        if module.training:
            self.zero_(module)

    def zero_(self, module: nn.Module) -> None:
        """Zero the masked entries of the module's buffers."""
        for attribute, drop in self.drop.items():
            # Batch norm saves its statistics for a backward pass that never reads them;
            # `.data` keeps that pass from refusing tensors that were written to.
            buffer = getattr(module, attribute).data
            zero_(buffer, drop.to(buffer.device))


def zero_(tensor: Tensor, drop: Tensor) -> None:
    """Write +0 where `drop` is True, whatever was there, NaN included."""
    with torch.no_grad():
        tensor.masked_fill_(drop, 0)


def attach_(module: nn.Module, attribute: str, keep: nn.Module) -> None:
    """Let `module.attribute` be computed as `keep(stored)`; masks may lie on masks."""
    order = tuple(module._parameters)
    if parametrize.is_parametrized(module):
        _own_class_(module)
    parametrize.register_parametrization(module, attribute, keep, unsafe=True)
    if not hasattr(module.parametrizations, _ORDER):
        setattr(module.parametrizations, _ORDER, order)
        cls: Any = type(module)
        cls.__deepcopy__ = _copying_the_class(cls.__deepcopy__)


def detach_(module: nn.Module, attribute: str, keep: nn.Module) -> None:
    """Undo `attach_`; the last mask to go leaves the stored parameter object in its old place."""
    if not parametrize.is_parametrized(module, attribute):
        return
    stages = module.parametrizations[attribute]  # type: ignore[index]
    assert isinstance(stages, parametrize.ParametrizationList)
    if len(stages) > 1:
        for i in [i for i, stage in enumerate(stages) if stage is keep]:
            del stages[i]
    elif stages[0] is keep:
        order = getattr(module.parametrizations, _ORDER)
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        _sort_(module._parameters, order)


def _own_class_(module: nn.Module) -> None:
    """Give a parametrized module a class that no other module has.

    torch makes a class per parametrized module, but a deep copy shares its original's, and
    what is then added to or removed from one of them changes the other.
    """
    cls = type(module)
    content = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, content)


def _copying_the_class(deepcopy: Callable[..., Any]) -> Callable[..., Any]:
    def replicate(module: nn.Module, memo: dict[int, Any]) -> Any:
        replica = deepcopy(module, memo)
        if type(replica) is type(module):
            _own_class_(replica)
        return replica

    return replicate


def _sort_(parameters: dict[str, Any], order: tuple[str, ...]) -> None:
    """Restore the order of registration, on which optimizer states depend."""
    known = [name for name in order if name in parameters]
    rest = [name for name in parameters if name not in known]
    for name in known + rest:
        parameters[name] = parameters.pop(name)
