"""Dropout made weaker, as a pruned layer needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from secateurs.core.example import Example, call
from secateurs.measure.forward import evaluation


def dropout_rates(
    model: nn.Module, mask: Mapping[str, Tensor], example: Example
) -> dict[str, float]:
    """Drop probability of every dropout module after pruning: D · √(connections left).

    The connections are those of the next layer that is called and has a masked weight,
    as a fraction of what it had; a dropout that no such layer follows keeps its rate.

    Source: Han et al. 2015, arXiv:1506.02626, section 3.2, eq. 2.
    """
    calls: list[str] = []
    names = {name for name, m in model.named_modules() if isinstance(m, _DropoutNd)} | {
        name.rpartition(".")[0] for name in mask
    }
    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_pre_hook(lambda m, x, name=name: calls.append(name))
        for name in names
    ]
    try:
        with evaluation(model), torch.no_grad():
            call(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    rates: dict[str, float] = {}
    for i, name in enumerate(calls):
        module = modules[name]
        if isinstance(module, _DropoutNd) and name not in rates:
            after = (mask.get(f"{later}.weight") for later in calls[i + 1 :])
            keep = next((k for k in after if k is not None), None)
            left = 1.0 if keep is None else float(keep.float().mean())
            rates[name] = module.p * left**0.5
    return rates


@contextmanager
def thinned(model: nn.Module, rates: Mapping[str, float]) -> Iterator[None]:
    """Change the drop probabilities of `model` until the block ends."""
    modules = dict(model.named_modules())
    before = {name: modules[name].p for name in rates}
    try:
        for name, p in rates.items():
            modules[name].p = p
        yield
    finally:
        for name, p in before.items():
            modules[name].p = p
