"""Prune, share weights, code: the file is what gets small."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.methods.dns import dns
from secateurs.methods.during import numbers
from secateurs.methods.magnitude import magnitude
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, check
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Coded, Shared
from secateurs.realise.masked import masked
from secateurs.realise.quantise import as_shared, quantise, rate_distortion
from secateurs.realise.sharing import Codebook, share
from secateurs.realise.sharing_bits import allot
from secateurs.realise.sharing_held import Step, shared

Pruning = Literal["magnitude", "dns"]
Store = Literal["float32", "float16", "levels"]
Code = Literal["smallest", "paper"]

CODES: dict[str, dict[str, tuple[str, ...]]] = {
    "smallest": {},
    "paper": {"indices": ("gaps5+huffman",), "values": ("huffman",)},
}
"""What `encode` is told: everything there is, or the paper's gaps of 5 bits and Huffman codes."""
BIAS_BITS = 6


def deep_compression(
    task: Task,
    target: Target,
    *,
    pruning: Pruning = "magnitude",
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    rounds: int = 1,
    bits: int = 5,
    bits_of: tuple[str, ...] = (),
    codebook: Codebook = "linear",
    price: float = 0.0,
    step: Step = "mean",
    tune: int = 1,
    biases: Store = "float32",
    entries: Store = "float32",
    code: Code = "paper",
    bytes: int = 0,
    ratio: float = 0.0,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Prune, retrain, let the weights share few values, tune those, and code what is left.

    Source: Han, Mao & Dally 2016, arXiv:1510.00149, figure 1; the defaults are its choices.
    Deviation: an entry moves by the mean gradient of its weights, so that the learning rate
    of the retraining fits it; `step="sum"` is the paper's rule.

    Args:
        task: model, data and training; without training nothing is retrained or tuned.
        target: how many weights stay.
        pruning: `magnitude` cuts in `rounds` and retrains; `dns` cuts and splices while it
            trains.
        ranking: how the target is shared among the layers.
        densities: NAME=FRACTION for weights that keep another density, under `uniform`.
        rounds: how many times `magnitude` cuts and trains.
        bits: of a code; a layer has at most 2 ** bits different weights.
        bits_of: NAME=BITS for weights with other bits.
        codebook: how the values are found; `optimum` is the best there is.
        price: what a bit is worth beside error, in squares of a level's width; above 0,
            values are evenly spaced at first and chosen by error + price x bits.
        step: how far an entry moves.
        tune: epochs of training the values; 0 leaves them.
        biases: how parameters that are not pruned and have one axis are stored; `levels`
            are whole numbers of 6 bits.
        entries: how the values of a codebook are stored.
        code: `paper` is gaps of 5 bits and Huffman codes; `smallest` takes for each layer
            whatever makes it smallest.
        bytes: of the whole file, at most; bits are then shared out among the layers.
        ratio: dense bytes by those of the file, at least; instead of `bytes`.
        exclude: patterns of parameter names that stay whole and dense.

    Raises:
        BudgetError: the target or the file's size cannot be met.
    """
    check("pruning", pruning, ("magnitude", "dns"))
    check("code", code, CODES)
    check("entries", entries, ("float32", "float16"))
    check("biases", biases, ("float32", "float16", "levels"))
    same = {"ranking": ranking, "densities": densities, "exclude": exclude}
    if pruning == "dns":
        pruned = dns(task, target, **same)  # type: ignore[arg-type]
    else:
        pruned = magnitude(task, target, rounds=rounds, **same)  # type: ignore[arg-type]
    model = copy.deepcopy(pruned.model)
    weights = {n: keep for n, keep in pruned.mask.items() if keep.dim() > 1}
    packing = Packing(biases, entries, CODES[code])
    widths = dict.fromkeys(weights, bits)
    widths |= {n: int(b) for n, b in numbers(bits_of, weights, what="bits_of").items()}
    budget = limit(model, bytes, ratio)
    if budget:
        widths = fit(model, weights, budget, packing, codebook)
        task.say("bits: " + ", ".join(f"{name} {b}" for name, b in widths.items()))
    if price:
        tables = priced(model, weights, widths, price)
    else:
        generator = torch.Generator().manual_seed(task.seed)
        tables = share(model, weights, widths, codebook=codebook, generator=generator)
    others = {name: keep for name, keep in pruned.mask.items() if name not in tables}
    with masked(model, others), shared(model, tables, step=step) as held:
        if task.train is not None and tune:
            task.train(model, name="tune", epochs=tune)
    coded = packing.coded(model, held.tables)
    for name, c in coded.items():
        parameter = model.get_parameter(name)
        parameter.data = (c if isinstance(c, Tensor) else c.dense()).to(parameter.dtype)
    mask = pruned.mask & {name: t.mask for name, t in tables.items()}
    size = len(encode(packing.contents(model, coded), None, **packing.code))
    if budget and size > budget:
        raise BudgetError(f"the file takes {size} bytes, not {budget}; allow that many")
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    task.say(f"packed, {dense} bytes become {size}: {dense / size:.1f} times fewer")
    return Pruned(model, mask, notes=pruned.notes, coded=coded, code=packing.code)


@dataclass(frozen=True)
class Packing:
    """How what is left is stored."""

    biases: str
    entries: str
    code: Mapping[str, tuple[str, ...]]

    def coded(self, model: nn.Module, tables: Mapping[str, Shared]) -> dict[str, Coded]:
        """Return what is not stored as it is, by parameter name."""
        found: dict[str, Coded] = {}
        for name, parameter in model.named_parameters():
            if name in tables:
                book = tables[name].codebook
                half = self.entries == "float16"
                found[name] = replace(tables[name], codebook=book.half() if half else book)
            elif parameter.dim() == 1 and self.biases == "levels":
                found[name] = quantise(parameter, BIAS_BITS)
            elif parameter.dim() == 1 and self.biases == "float16":
                found[name] = parameter.detach().half()
        return found

    def contents(self, model: nn.Module, coded: Mapping[str, Coded]) -> dict[str, Coded]:
        """Return everything the file holds."""
        return {name: coded.get(name, t) for name, t in model.state_dict().items()}


def limit(model: nn.Module, size: int, ratio: float) -> int:
    """Return how many bytes a file may take; 0 when nobody says.

    Raises:
        BudgetError: both are given, or one makes no sense.
    """
    if size and ratio:
        raise BudgetError(f"bytes {size} and ratio {ratio:g} are two budgets; give one")
    if size < 0 or (ratio and ratio < 1):
        raise BudgetError(f"cannot aim at bytes {size}, ratio {ratio:g}; use 1 or more")
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return int(dense / ratio) if ratio else size


def fit(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    budget: int,
    packing: Packing,
    codebook: Codebook,
) -> dict[str, int]:
    """Return bits by name such that the whole file takes at most `budget` bytes.

    Raises:
        BudgetError: not even one bit a weight fits.
    """

    def size(tables: Mapping[str, Shared]) -> int:
        halves = packing.coded(model, tables)
        return len(encode({n: halves[n] for n in tables}, None, **packing.code))

    one = share(model, weights, 1, codebook=codebook)
    whole = len(encode(packing.contents(model, packing.coded(model, one)), None, **packing.code))
    rest = whole - sum(size({name: t}) for name, t in one.items())
    # Tuning changes entries and biases, whose bytes may then differ a little.
    slack = 16 + budget // 200
    if whole + slack > budget:
        kept = sum(int(keep.sum()) for keep in weights.values())
        raise BudgetError(
            f"cannot pack {kept} weights into a file of {budget} bytes: with 1 bit each it "
            f"takes about {whole + slack}; allow that many, or keep fewer weights"
        )
    return allot(model, weights, budget - rest - slack, size=size, codebook=codebook)


def priced(
    model: nn.Module, weights: Mapping[str, Tensor], bits: Mapping[str, int], price: float
) -> dict[str, Shared]:
    """Return tables of evenly spaced values, chosen by error + price x bits."""
    tables = {}
    for name, keep in weights.items():
        weight = model.get_parameter(name).detach() * keep
        width = quantise(weight, max(2, bits[name])).step
        tables[name] = as_shared(rate_distortion(weight, width, price * float(width) ** 2))
    return tables
