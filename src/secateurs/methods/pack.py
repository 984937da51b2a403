"""Pack a network as it is, without training: its zeros, and few values if so wanted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.methods.packing import CODES, Packing, fit, limit
from secateurs.methods.where import check
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Shared
from secateurs.realise.sharing import share

Store = Literal["float32", "float16", "levels"]
Code = Literal["smallest", "slow", "paper"]


@dataclass(frozen=True)
class Packed:
    """How `pack` stores a network; by default every bit of it comes back."""

    bits: int = 0
    """Of a weight: each layer gets at most 2 ** bits values; 0 keeps all."""
    bytes: int = 0
    """Of the whole file, at most; bits are shared out among the layers."""
    ratio: float = 0.0
    """Dense bytes by those of the file, at least; instead of `bytes`."""
    biases: Store = "float32"
    entries: Store = "float32"
    code: Code = "smallest"


def pack(model: nn.Module, how: Packed, about: Mapping[str, Any] | None = None) -> bytes:
    """Return a model as a .secz file; its zeros are its mask, and the model is not changed.

    Raises:
        BudgetError: both bits and a size are given, or the size cannot be met.
    """
    check("code", how.code, CODES)
    check("biases", how.biases, ("float32", "float16", "levels"))
    check("entries", how.entries, ("float32", "float16"))
    budget = limit(model, how.bytes, how.ratio)
    if how.bits and budget:
        raise BudgetError(f"bits {how.bits} and a size are two budgets; give one")
    packing = Packing(how.biases, 8, how.entries, CODES[how.code])
    tables: dict[str, Shared] = {}
    if how.bits or budget:
        mask = kept(model)
        widths = fit(model, mask, budget, packing, "linear") if budget else how.bits
        tables = share(model, mask, widths)
    blob = encode(packing.contents(model, packing.coded(model, tables)), about, **packing.code)
    if budget and len(blob) > budget:
        raise BudgetError(f"the file takes {len(blob)} bytes, not {budget}; allow that many")
    return blob


def kept(model: nn.Module) -> dict[str, Tensor]:
    """Return which weights are not zero, for every weight of two axes or more."""
    return {n: p.detach() != 0 for n, p in model.named_parameters() if p.dim() > 1}


def skeleton(state: Mapping[str, Tensor]) -> nn.Module:
    """Return modules that hold a state dict and compute nothing.

    >>> list(skeleton({"a.0.weight": nn.Linear(2, 1).weight}).state_dict())
    ['a.0.weight']
    """
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if tensor.is_floating_point():
            module.register_parameter(last, nn.Parameter(tensor.detach(), requires_grad=False))
        else:
            module.register_buffer(last, tensor)
    return root
