"""Prune, share weights, code: the file is what gets small."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.core.mask import Mask
from secateurs.core.within import Amount, Count, Part, Whole, Within, checked
from secateurs.methods.codebook_plot import draw
from secateurs.methods.dns import dns
from secateurs.methods.during import numbers
from secateurs.methods.gradual import gradual
from secateurs.methods.magnitude import magnitude
from secateurs.methods.packing import CODES, Packing, fit, limit, priced, roomy
from secateurs.methods.pictures import hung
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import REMOVED, Ranking, check
from secateurs.realise.coding.shared import Shared
from secateurs.realise.masked import masked
from secateurs.realise.rounding import rounded
from secateurs.realise.sharing import MOST_BITS, Codebook, share
from secateurs.realise.sharing_held import Step, shared

Pruning = Literal["magnitude", "gradual", "dns"]
Learn = Literal["values", "weights"]
Store = Literal["float32", "float16", "levels"]
Code = Literal["smallest", "slow", "paper"]

PLOT = "codebook.svg"
CAPTION = "Weights that were kept, layer by layer, and the values they share."
BITS = Within(0, MOST_BITS)
SETTLE = 50
"""Steps of training between two looks at which values the weights take."""


@checked
def deep_compression(
    task: Task,
    target: Target,
    *,
    channels: Part = 1.0,
    pruning: Pruning = "magnitude",
    ranking: Ranking = "uniform",
    densities: tuple[str, ...] = (),
    rounds: Count = 1,
    bits: Annotated[int, BITS] = 5,
    bits_of: tuple[str, ...] = (),
    codebook: Codebook = "linear",
    price: Amount = 0.0,
    step: Step = "mean",
    learn: Learn = "values",
    tune: Whole = 1,
    biases: Store = "float32",
    bias_bits: Annotated[int, Within(2, 16)] = 6,
    entries: Store = "float32",
    code: Code = "paper",
    bytes: Whole = 0,
    ratio: Amount = 0.0,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Prune, retrain, let the weights share few values, tune those, and code what is left.

    Source: Han, Mao & Dally 2016, arXiv:1510.00149, figure 1; the defaults are its choices.
    Deviation: an entry moves by the mean gradient of its weights, so that the learning rate
    of the retraining fits it; `step="sum"` is the paper's rule.

    Args:
        task: model, data and training; without training nothing is retrained or tuned.
        target: how many weights stay, of those that are left by `channels`; a density of 1
            leaves that to `bytes` or `ratio`, if given: as many as 9 bits each allow.
        channels: share of the MACs that is left when the channels of least norm are removed
            first, physically and without retraining; 1 removes none.
        pruning: `magnitude` cuts in `rounds` and retrains; `gradual` cuts a few weights at a
            time while it trains, `dns` cuts and splices.
        ranking: how the target is shared among the layers.
        densities: NAME=FRACTION for weights that keep another density, under `uniform`.
        rounds: how many times `magnitude` cuts and trains.
        bits: of a code; a layer has at most 2 ** bits different weights.
        bits_of: NAME=BITS for weights with other bits.
        codebook: how the values are found; `optimum` is the best there is.
        price: what a bit is worth beside error. Above 0, weights choose their values by
            error + price x bits: once, among evenly spaced values and in squares of their
            distance; or, where `weights` learn, all along and in mean squares of the layer.
        step: how far an entry moves.
        learn: what is trained once weights are values: the `values`, which is the paper's
            step, or the `weights` behind them, which may then take other values, or zero.
        tune: epochs of that; 0 leaves everything as it is.
        biases: how parameters that have one axis are stored; `levels` are whole numbers.
        bias_bits: of a level.
        entries: how the values of a codebook are stored.
        code: `paper` is gaps of 5 bits and Huffman codes; `smallest` takes for each layer
            whatever makes it smallest, of what reads in half a second or no slower than the
            dense file from a disk of 100 MB/s; `slow` whatever makes it smallest.
        bytes: of the whole file, at most; bits are then shared out among the layers.
        ratio: dense bytes by those of the file, at least; instead of `bytes`.
        exclude: patterns of parameter names that stay whole and dense.

    Raises:
        BudgetError: the target or the file's size cannot be met.
    """
    check("pruning", pruning, ("magnitude", "gradual", "dns"))
    check("learn", learn, ("values", "weights"))
    check("code", code, CODES)
    check("entries", entries, ("float32", "float16"))
    check("biases", biases, ("float32", "float16", "levels"))
    budget, slim = limit(task.model, bytes, ratio), None
    if budget and target == Target("density", 1.0):
        target = Target("density", roomy(task.model, budget))
        task.say(f"{budget} bytes: keeping {target.fraction:.2%} of the weights")
    if channels < 1:
        whole = replace(task, train=None)
        slim = magnitude(whole, Target("macs", channels), granularity=REMOVED, exclude=exclude)
        task = replace(task, model=slim.model)
    pruned = _cut(task, target, pruning, ranking, densities, rounds, exclude)
    model = copy.deepcopy(pruned.model)
    weights = {n: keep for n, keep in pruned.mask.items() if keep.dim() > 1}
    packing = Packing(biases, bias_bits, entries, CODES[code])
    widths = dict.fromkeys(weights, bits)
    own = numbers(bits_of, weights, what="bits_of", within=BITS)
    widths |= {n: int(b) for n, b in own.items()}
    if budget:
        widths = fit(model, weights, budget, packing, codebook)
        task.say("bits: " + ", ".join(f"{name} {b}" for name, b in widths.items()))
    if price and learn == "values":
        untuned = priced(model, weights, widths, price)
    else:
        generator = torch.Generator().manual_seed(task.seed)
        untuned = share(model, weights, widths, codebook=codebook, generator=generator)
    others = {name: keep for name, keep in pruned.mask.items() if name not in untuned}
    drawn = weights if task.folder is not None else {}
    before = {n: (model.get_parameter(n).detach() * keep).cpu() for n, keep in drawn.items()}
    with masked(model, others):
        if learn == "values":
            tables = _values(task, model, untuned, step, tune)
        else:
            tables = _weights(task, model, untuned, price, tune, packing, budget)
    pictures = _drawn(task, before, untuned, tables)
    coded = packing.coded(model, tables)
    for name, c in coded.items():
        parameter = model.get_parameter(name)
        parameter.data = (c if isinstance(c, Tensor) else c.dense()).to(parameter.dtype)
    size = packing.size(model, tables)
    if budget and size > budget:
        raise BudgetError(f"the file takes {size} bytes, not {budget}; allow that many")
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    task.say(f"packed, {dense} bytes become {size}: {dense / size:.1f} times fewer")
    mask = pruned.mask & Mask({name: t.mask for name, t in tables.items()})
    pruned = replace(
        pruned, model=model, mask=mask, coded=coded, code=packing.code, pictures=pictures
    )
    return replace(pruned, graph=slim.graph, compacted=slim.compacted) if slim else pruned


def _cut(
    task: Task,
    target: Target,
    how: Pruning,
    ranking: Ranking,
    densities: tuple[str, ...],
    rounds: int,
    exclude: tuple[str, ...],
) -> Pruned:
    """Prune weights and retrain, by the method asked for."""
    if how == "gradual":
        return gradual(task, target, ranking=ranking, exclude=exclude)
    if how == "dns":
        return dns(task, target, ranking=ranking, densities=densities, exclude=exclude)
    return magnitude(
        task, target, ranking=ranking, densities=densities, rounds=rounds, exclude=exclude
    )


def _drawn(
    task: Task,
    weights: Mapping[str, Tensor],
    before: Mapping[str, Shared],
    after: Mapping[str, Shared],
) -> dict[str, str]:
    """Draw the values into the task's folder: caption → SVG; nothing where it has none."""
    if task.folder is None:
        return {}
    what, picture = "weights and their values, layer by layer", draw(weights, before, after)
    return hung(task, task.folder / PLOT, picture, what=what, caption=CAPTION)


def _values(
    task: Task, model: nn.Module, tables: dict[str, Shared], step: Step, tune: int
) -> dict[str, Shared]:
    """Train the values, each weight keeping its own: → the tables."""
    with shared(model, tables, step=step) as held:
        if task.train is not None and tune:
            task.train(model, name="tune", epochs=tune)
    return held.tables


def _weights(
    task: Task,
    model: nn.Module,
    tables: dict[str, Shared],
    price: float,
    tune: int,
    packing: Packing,
    budget: int,
) -> dict[str, Shared]:
    """Train the weights behind the values: → the tables.

    Should the file not fit then, bits get dearer until it does.
    """
    with rounded(model, tables) as held:

        def settle(step: int) -> None:
            if step % SETTLE == 0:
                held.settle_(price)

        if task.train is not None and tune:
            task.train(model, name="tune", epochs=tune, after_step=settle)
        dearer = max(price, 1e-3)
        while budget and packing.size(model, held.tables) > budget and dearer < 100:
            held.settle_(dearer)
            dearer *= 1.2
    return held.tables
