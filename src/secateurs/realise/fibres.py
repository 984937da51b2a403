"""Thin layers where they pay: convolutions that gather surviving taps, timed one by one."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from secateurs.core.errors import ShapeError, StructureError
from secateurs.core.example import Example, call
from secateurs.measure.forward import evaluation
from secateurs.measure.latency import latency
from secateurs.realise.lowered import Lowered


@dataclass(frozen=True)
class Layer:
    """One convolution: what it kept, and what was measured on its own input."""

    density: float
    """Fraction of its taps that stay."""
    dense_s: float
    """Seconds of the fastest dense kernel, with the zeros in place."""
    layout: str
    """Which memory layout that kernel liked: `contiguous` or `channels_last`."""
    thin_s: float
    thin: bool
    """Whether the thin product took its place."""

    @property
    def speedup(self) -> float:
        """How many times faster the thin product is than the best dense kernel."""
        return self.dense_s / self.thin_s


@dataclass(frozen=True)
class Thinned:
    """A model with thin layers, and the timings that chose them."""

    model: nn.Module
    layers: Mapping[str, Layer]
    """Weight → what was measured, in the order of the mask."""


def thin(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    example: Example,
    *,
    only_faster: bool = True,
    threads: int | None = 1,
    rounds: int = 10,
) -> Thinned:
    """Copy a model with thin products for the masked convolutions that gain from them.

    A thin product gathers the taps that some filter still uses and multiplies them by the
    kept weights, (out, columns) by (columns, positions), which is exact. Each layer is
    timed on the input it gets from `example`, side by side with the best dense kernel.

    Source: Lebedev & Lempitsky 2016, arXiv:1506.02515, section 3.

    Args:
        model: not changed. What the mask drops is read as zero.
        mask: weight → bool of its shape. Weights that are no convolution's, and masks whose
            filters keep different taps, stay as they are.
        example: what the model is called with.
        only_faster: False puts in every thin product, whatever it takes.
        threads: CPU threads of the timing.
        rounds: how often each layer is timed.

    Raises:
        StructureError: the example does not reach a masked convolution.
    """
    small = copy.deepcopy(model)
    modules, found = dict(small.named_modules()), {}
    pairs: dict[str, tuple[_ConvNd, Lowered]] = {}
    for name, keep in mask.items():
        conv = modules.get(name.rpartition(".")[0])
        if isinstance(conv, _ConvNd) and not conv.transposed and not bool(keep.all()):
            with torch.no_grad():
                conv.weight.mul_(keep.to(conv.weight))
            try:
                pairs[name] = conv, Lowered(conv, keep)
            except ShapeError:  # filters keep different taps: no column is free
                continue
    inputs = _inputs(small, [conv for conv, _ in pairs.values()], example)
    for name, (conv, narrow) in pairs.items():
        if id(conv) not in inputs:
            raise StructureError(
                f"the example does not reach {name!r}, so it cannot be timed; pass an example "
                "that does, or leave it out of the mask"
            )
        found[name] = _choose(conv, narrow, inputs[id(conv)], only_faster, threads, rounds)
        if found[name].thin:
            path = name.rpartition(".")[0]
            if not path:
                return Thinned(narrow, found)
            small.set_submodule(path, narrow)
    return Thinned(small, found)


def _inputs(model: nn.Module, convs: list[_ConvNd], example: Example) -> dict[int, Tensor]:
    """Run the model once: module's id → its last input."""
    heard: dict[int, Tensor] = {}

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        heard[id(module)] = args[0].detach().clone()

    handles = [conv.register_forward_pre_hook(hook) for conv in convs]
    try:
        with evaluation(model):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return heard


def _choose(
    conv: _ConvNd, narrow: Lowered, x: Tensor, only_faster: bool, threads: int | None, rounds: int
) -> Layer:
    """Time the dense kernel in both layouts and the thin product, on the same input."""
    dense: dict[str, nn.Module] = {"contiguous": conv}
    if conv.weight.dim() == 4:
        last = copy.deepcopy(conv).to(memory_format=torch.channels_last)
        # The input comes laid out as the kernel likes it: the best case for the dense side.
        dense["channels_last"] = _Takes(last, x.to(memory_format=torch.channels_last))
    timed = latency({**dense, "thin": narrow}, x, threads=threads, rounds=rounds)
    layout = min(dense, key=lambda name: timed[name].median_s)
    best, ours = timed[layout], timed["thin"]
    # Faster beyond the spread of the timings, or the zeros stay where they are.
    faster = ours.high_s < best.low_s
    density = sum(narrow.counts) / (conv.weight[0].numel() * conv.groups)
    return Layer(density, best.median_s, layout, ours.median_s, faster or not only_faster)


class _Takes(nn.Module):
    """Runs a layer on an input of its own."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.layer, self.x = layer, x

    def forward(self, ignored: Tensor) -> Tensor:
        y: Tensor = self.layer(self.x)
        return y
