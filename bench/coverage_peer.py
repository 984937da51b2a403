"""What Torch-Pruning makes of a model, without being told anything about it."""

import copy
import signal
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.example import arguments, call, floats, tensors
from secateurs.realise.calls import difference

LIMIT_S = 20
"""Of computing; a model it has not finished by then counts as one that does not run."""


def torch_pruning(
    model: nn.Module, example: Any, *, crosses: bool, last: Sequence[str] = ()
) -> dict[str, Any]:
    """Prune half of every group: share of prunable parameters, whether it runs and is right.

    The only help is what its readme asks of everyone: the layers that make the model's
    outputs are left alone. They are those that hold a parameter in `last`, which is what our
    own trace found, and any with 1000 outputs. The result is compared with the model whose
    pruned positions are zero; where a norm takes statistics across channels, `crosses`, a
    difference proves nothing and is reported as such.
    """
    import torch_pruning as peer

    start = time.perf_counter()
    _stop_after(LIMIT_S)
    result: dict[str, Any] = {"version": version("torch-pruning")}
    masked = copy.deepcopy(model).double().eval()
    model = copy.deepcopy(model).double().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    example = floats(example, torch.float64)
    try:
        args, kwargs = arguments(example)
        given: Any = kwargs if kwargs else args if len(args) != 1 else args[0]
        holders = {name.rpartition(".")[0] for name in last}
        final = [m for n, m in model.named_modules() if _width(m) == 1000 or _ends(n, m, holders)]
        names = {id(m): n for n, m in model.named_modules()}
        pruner = peer.pruner.MagnitudePruner(
            model,
            given,
            importance=peer.importance.GroupMagnitudeImportance(),
            pruning_ratio=0.5,
            ignored_layers=final,
        )
        result["share"] = _share(pruner, masked, names, final)
        full, left = dict(masked.named_modules()), _Left()
        for group in pruner.step(interactive=True):
            for item in group:
                name = names.get(id(item.dep.target.module))
                if name is not None:
                    own = dict(full[name].named_parameters(recurse=False))
                    _mark(own, item, 0, left.originals(name, item))
            group.prune()
        with torch.no_grad():
            found = tensors(call(model, example))
            result["runs"] = True
            away = difference(found, tensors(call(masked, example)))
        result["equal"] = "across norms" if crosses and away > 1e-8 else away <= 1e-8
        result["difference"] = away
    except Exception as error:
        result.setdefault("runs", False)
        result.setdefault("equal", False)
        result["error"] = f"{type(error).__name__}: {error}"[:300]
    _stop_after(0)
    result["seconds"] = time.perf_counter() - start
    return result


def _stop_after(seconds: float) -> None:
    """Raise TimeoutError after so many seconds of this process's own computing; 0 for never."""

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"over {seconds:g} s of computing")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)


def _share(
    pruner: Any, model: nn.Module, names: Mapping[int, str], last: Sequence[nn.Module]
) -> float:
    """Share of the parameters with an axis in a group."""
    marks = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters()}
    groups = pruner.DG.get_all_groups(
        ignored_layers=last, root_module_types=pruner.root_module_types
    )
    for group in groups:
        for item in group:
            name = names.get(id(item.dep.target.module))
            if name is not None:
                own = {
                    n: marks[f"{name}.{n}"] for n in ("weight", "bias") if f"{name}.{n}" in marks
                }
                _mark(own, item, True, list(item.idxs))
    return sum(int(t.sum()) for t in marks.values()) / sum(t.numel() for t in marks.values())


class _Left:
    """Which original indices a layer has left while groups are pruned one after the other."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, bool], list[int]] = {}

    def originals(self, name: str, item: Any) -> list[int]:
        """Take pruned indices out and say what they were called at first."""
        key = (name, _into(item))
        if key not in self._left:
            counts = (item.dep.target.module, item.dep.handler)
            self._left[key] = list(range(max(_count(*counts), max(item.idxs) + 1)))
        left, gone = self._left[key], set(item.idxs)
        found = [left[i] for i in item.idxs]
        self._left[key] = [v for i, v in enumerate(left) if i not in gone]
        return found


def _count(layer: nn.Module, handler: Any) -> int:
    sizes = [max(p.shape) for p in layer.parameters(recurse=False) if p.dim()]
    return max(sizes, default=0) * int(getattr(layer, "groups", 1))


def _ends(name: str, layer: nn.Module, holders: set[str]) -> bool:
    return name in holders and _width(layer) > 0


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))


def _into(item: Any) -> bool:
    return bool(item.dep.handler.__name__ == "prune_in_channels")


def _mark(own: Mapping[str, Tensor], item: Any, value: float, idxs: list[int]) -> None:
    """Write a value wherever a pruned index of a layer lies."""
    into, layer = _into(item), item.dep.target.module
    for tensor in own.values():
        if into and tensor.dim() < 2:
            continue
        dim = 1 if into != getattr(layer, "transposed", False) and tensor.dim() > 1 else 0
        index = torch.tensor([i for i in idxs if i < tensor.shape[dim]], dtype=torch.long)
        with torch.no_grad():
            tensor.index_fill_(dim, index, value)
