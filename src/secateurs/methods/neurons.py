"""Neurons that an element mask has cut off from their inputs or their outputs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from secateurs.core.layers import layers
from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.realise.units import mask_of


def without_dead(model: nn.Module, graph: Graph, mask: Mask) -> Mask:
    """Cut also all that belongs to neurons without inputs or without outputs, in a cascade.

    A neuron without inputs still sends its bias on, as a constant: train after.

    Source: Han et al. 2015, arXiv:1506.02626, section 3.5.
    """
    removed = torch.zeros(graph.units, dtype=torch.bool)
    while True:
        for axis in ("in_axis", "out_axis"):
            touched = torch.zeros_like(removed)
            alive = torch.zeros_like(removed)
            for units, kept in _ends(model, graph, mask, axis):
                touched[units[units >= 0]] = True
                alive[units[(units >= 0) & kept]] = True
            removed |= touched & ~alive
        more = mask & mask_of(graph, removed)
        if all(torch.equal(more[name], mask[name]) for name in mask) and len(more) == len(mask):
            return more
        mask = more


def _ends(model: nn.Module, graph: Graph, mask: Mask, axis: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for one end of every layer the unit at each index, and whether a weight is left."""
    for name, layer in layers(model).items():
        dim = getattr(layer, axis)
        units = graph.axes.get((name, dim))
        if units is None:
            continue
        keep = mask.get(name, torch.ones(layer.shape, dtype=torch.bool)).cpu()
        if units.dim() == 2:
            # Shape: inputs of a grouped convolution, (groups, in / groups); see `Graph.axes`.
            keep = keep.view(units.shape[0], -1, *layer.shape[1:])
            yield units.flatten(), keep.movedim(2, 1).flatten(2).any(dim=2).flatten()
        else:
            yield units, keep.movedim(dim, 0).flatten(1).any(dim=1)
