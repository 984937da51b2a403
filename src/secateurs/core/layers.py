"""The layers whose weights can be cut, and which axis of a weight is which."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from secateurs.core.errors import StructureError


@dataclass(frozen=True)
class Layer:
    """One weight: (out, in // groups, *kernel), or (in, out // groups, *kernel) if transposed.

    A linear layer is a convolution without kernel axes.
    """

    param: str
    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's size; () for a linear layer."""
        return self.shape[2:]

    @property
    def out_axis(self) -> int:
        """Which axis of the weight holds the output channels."""
        return 1 if self.transposed else 0

    @property
    def in_axis(self) -> int:
        """Which axis of the weight holds the input channels."""
        return 0 if self.transposed else 1

    @property
    def group_shape(self) -> tuple[int, ...]:
        """The shape of one group's share of the weight."""
        return (self.shape[0] // self.groups, *self.shape[1:])


def layers(model: nn.Module) -> dict[str, Layer]:
    """List the weights of linear, convolution, attention and recurrent layers by parameter name.

    A weight shared by several layers appears once, under the first of its names.

    Raises:
        StructureError: a lazy layer has no weight yet, or a weight is computed by a
            parametrization that keeps several tensors.
    """
    model = plain_module(model)
    first = {id(p): plain_name(name) for name, p in model.named_parameters()}
    found: dict[str, Layer] = {}
    for path, module in model.named_modules():
        for attribute, groups, transposed in multiplied(module):
            name = f"{path}.{attribute}" if path else attribute
            weight = _stored(module, attribute, name)
            name = first.get(id(weight), name)
            found.setdefault(name, Layer(name, tuple(weight.shape), groups, transposed))
    return found


def plain_module(model: nn.Module) -> nn.Module:
    """Unwrap torch.compile, DistributedDataParallel and DataParallel."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        else:
            return model


def multiplied(module: nn.Module) -> Iterator[tuple[str, int, bool]]:
    """Yield (attribute, groups, transposed) of the weights a module multiplies its input with."""
    if isinstance(module, _ConvNd):
        yield "weight", module.groups, module.transposed
    elif isinstance(module, nn.Linear):
        yield "weight", 1, False
    elif isinstance(module, nn.MultiheadAttention):
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(module, name) is not None:
                yield name, 1, False
    elif isinstance(module, nn.RNNBase):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 2:
                yield name, 1, False
    elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        # The linear layer of transformers' GPT-2, which stores (in, out).
        yield "weight", 1, True


def plain_name(name: str) -> str:
    """Name a parametrized parameter as if it were not.

    >>> plain_name("conv.parametrizations.weight.original")
    'conv.weight'
    """
    return re.sub(r"parametrizations\.([^.]+)\.original$", r"\1", name)


def _stored(module: nn.Module, attribute: str, name: str) -> nn.Parameter:
    """Find the parameter behind an attribute, also behind a parametrization of one tensor."""
    parametrized = getattr(module, "parametrizations", {})
    if attribute in parametrized:
        weight = getattr(parametrized[attribute], "original", None)
        if weight is None:
            raise StructureError(
                f"{name!r} is computed from several tensors by a parametrization; make it one "
                f"with torch.nn.utils.parametrize.remove_parametrizations(module, {attribute!r})"
            )
    else:
        weight = module._parameters.get(attribute)
    if weight is None:
        raise StructureError(
            f"{name!r} is not a parameter of {type(module).__name__}; if torch.nn.utils.prune or "
            f"weight_norm replaced it, remove that first"
        )
    if isinstance(weight, UninitializedParameter):
        raise StructureError(f"{name!r} has no shape yet; call the model once on an input first")
    return weight
