"""Coupled channels: the positions of many parameters that must go together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.errors import EvidenceError, ShapeError, StructureError
from secateurs.granularity.blocks import decided
from secateurs.granularity.patterns import Patterns, chosen
from secateurs.graph.graph import Bucket, Graph, Slices


@dataclass(frozen=True, eq=False)
class Coupled:
    """The units of one bucket of a graph; a row is all that leaves with the unit."""

    bucket: Bucket
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of every parameter and buffer the bucket touches."""

    @property
    def units(self) -> int:
        """How many units the bucket has."""
        return self.bucket.ids.numel()

    @property
    def among(self) -> int | None:
        """The pool size, where a view demands a rectangle."""
        return self.bucket.among

    @property
    def params(self) -> tuple[str, ...]:
        """Every parameter and buffer the units lie in, once."""
        return tuple(dict.fromkeys(part.param for part in self.bucket.slices))

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Concatenate the slices of every unit: → (units, size).

        A tensor of length 1 along an axis in which the units lie says nothing about them
        and is passed over; along other axes its length is not repeated.

        Raises:
            EvidenceError: no tensor speaks of these units.
            ShapeError: a tensor has neither the parameter's shape nor length 1.
        """
        found = [
            rows
            for part in self.bucket.slices
            if part.param in tensors
            and (rows := _rows(part, self.shapes[part.param], tensors[part.param])) is not None
        ]
        if not found:
            raise EvidenceError(
                f"nothing was measured about the units of {self.bucket.name!r}, which lie in "
                f"{', '.join(self.params)}"
            )
        return torch.cat(found, dim=1)

    def scatter(self, keep: Tensor) -> dict[str, Tensor]:
        """Mask every position of the units that go: bool (units,) → bool by parameter."""
        stays = decided(self.bucket.name, self.units, keep)
        masks: dict[str, Tensor] = {}
        for part in self.bucket.slices:
            mask = _laid(part, self.shapes[part.param], stays)
            masks[part.param] = masks[part.param] & mask if part.param in masks else mask
        return masks

    def spread(self, values: Tensor) -> dict[str, Tensor]:
        """Lay one number of each unit on all its positions: (units,) → by parameter.

        Positions of no unit read as 1; where a unit meets another of its bucket, as in a
        layer that reads and writes the same stream, their numbers multiply.
        """
        found: dict[str, Tensor] = {}
        for part in self.bucket.slices:
            laid = _laid(part, self.shapes[part.param], values)
            found[part.param] = found[part.param] * laid if part.param in found else laid
        return found


def channels(
    graph: Graph,
    *,
    kind: str | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Coupled]:
    """The coupled units of a traced model, by bucket name.

    Patterns match a bucket's name, `layer1.0.conv1.weight:0`, that name without the
    axis, its layer, and `parameter:axis` of everything else the bucket touches. `kind`
    takes only buckets of that kind, `channel` or `head`.

    Raises:
        UnknownNameError: a pattern matches nothing.
        StructureError: the graph has no units to remove.
    """
    buckets = {n: b for n, b in graph.buckets.items() if kind is None or b.kind == kind}
    if not buckets:
        reasons = ", ".join(dict.fromkeys(frozen.reason for frozen in graph.frozen))
        raise StructureError(
            f"no {kind or 'channel'} of this model can be removed: {reasons or 'it has none'}"
        )
    names = chosen({name: _spellings(b) for name, b in buckets.items()}, include, exclude)
    return {name: _coupled(graph, buckets[name]) for name in names}


def isomorphic(sites: Mapping[str, Coupled]) -> dict[str, tuple[str, ...]]:
    """Group the sites that lie in as many axes of the same kind, to be ranked together.

    Returns:
        Pattern → the names of the sites that share it, for the `groups` of a budget.

    Source: Fang et al. 2024, "Isomorphic pruning for vision models", which compares only
    sub-structures of one topology. Deviation: the topology is read from the slices.
    """
    groups: dict[str, list[str]] = {}
    for name, site in sites.items():
        parts = sorted(
            f"{len(part.view)}d:{','.join(map(str, part.dims))}" for part in site.bucket.slices
        )
        groups.setdefault(f"{site.bucket.kind} {' '.join(parts)}", []).append(name)
    return {pattern: tuple(names) for pattern, names in groups.items()}


def _coupled(graph: Graph, bucket: Bucket) -> Coupled:
    return Coupled(bucket, {part.param: graph.shapes[part.param] for part in bucket.slices})


def _spellings(bucket: Bucket) -> list[str]:
    param = bucket.name.rpartition(":")[0] or bucket.name
    lies = [f"{part.param}:{','.join(map(str, part.dims))}" for part in bucket.slices]
    return [param, param.rpartition(".")[0], *lies]


def _rows(part: Slices, shape: tuple[int, ...], tensor: Tensor) -> Tensor | None:
    """Gather one slice, (units, size), or None where the tensor is silent about the units."""
    view = _measured_view(part, shape, tensor)
    if any(view[d] != part.view[d] for d in part.dims):
        return None
    rest = [d for d in range(len(view)) if d not in part.dims]
    # Shape: the units' axes first and merged, then all others.
    merged = tensor.reshape(view).permute(*part.dims, *rest)
    merged = merged.reshape(math.prod(part.view[d] for d in part.dims), -1)
    index = part.index.to(tensor.device)
    return merged[index.flatten()].reshape(index.shape[0], -1)


def _measured_view(part: Slices, shape: tuple[int, ...], tensor: Tensor) -> list[int]:
    """Return the slice's view with length 1 wherever the tensor has length 1."""
    fits = tensor.dim() == len(shape) and all(
        have in (1, want) for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"evidence about {part.param!r} has shape {tuple(tensor.shape)}, the parameter "
            f"{shape}; use the parameter's shape, or length 1 along an axis"
        )
    view: list[int] = []
    lengths = list(part.view)
    for have, want in zip(tensor.shape, shape, strict=True):
        # Each axis of the parameter is the product of the next axes of the view.
        product = 1
        while lengths and (product < want or lengths[0] == 1):
            product *= lengths[0]
            view.append(1 if have == 1 else lengths[0])
            lengths.pop(0)
    return view


def _laid(part: Slices, shape: tuple[int, ...], values: Tensor) -> Tensor:
    """Lay (units,) on one slice: → the parameter's shape, True or 1 at positions of no unit."""
    merged = torch.ones(
        math.prod(part.view[d] for d in part.dims), dtype=values.dtype, device=values.device
    )
    index = part.index.to(values.device)
    merged[index] = values[:, None].expand_as(index)
    # Shape: `dims` may come in any order; put them back where the view has them.
    lengths = [part.view[d] for d in part.dims]
    ascending = sorted(range(len(part.dims)), key=part.dims.__getitem__)
    along = merged.view(lengths).permute(ascending)
    spread = [n if d in part.dims else 1 for d, n in enumerate(part.view)]
    return along.reshape(spread).expand(part.view).reshape(shape)
