"""From labels to units: classes that go together, and buckets of alike ones."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateurs.core.errors import StructureError
from secateurs.graph.graph import Bucket, Frozen, Graph, Slices
from secateurs.graph.labels import Labels, distinct, groups

Axis = tuple[str, int]


@dataclass(frozen=True)
class Units:
    """The classes of labels that can be removed, and how they are pooled."""

    unit_of: Tensor
    """Label → unit, -1 where none."""
    count: int
    axes: dict[Axis, Tensor]
    """(parameter, dim) → unit at each index."""
    cells: list[list[Tensor]]
    """Per bucket: its pools, each the units in order."""
    reasons: Tensor
    """Label → index of the freeze that holds it, -1 where none."""


def settle(labels: Labels) -> Units:
    """Make classes of all pairs, tying rows of rectangles that could not stay rectangular."""
    tied: set[int] = set()
    while True:
        unit_of, count, reasons = _classes(labels)
        axes = {axis: _units_of_axis(ids, unit_of) for axis, ids in labels.params.items()}
        rectangles = [unit_of[ids] for ids in labels.rectangles]
        cells = _cells(axes, rectangles, count)
        broken = _broken(rectangles, cells, count)
        if not broken:
            return Units(unit_of, count, axes, cells, reasons)
        place = _places(cells)
        for number in broken:
            pairs = None if number in tied else _matching(rectangles[number], place)
            tied.add(number)
            matrix = labels.rectangles[number]
            for a, b in pairs or [(0, row) for row in range(1, len(matrix))]:
                labels.unify(matrix[a], matrix[b], "shares a rectangle with a fixed position")


def _classes(labels: Labels) -> tuple[Tensor, int, Tensor]:
    """Number the classes: label → unit, how many units, label → why it is frozen."""
    group = groups(labels.count, labels.pairs)
    size = int(group.max()) + 1
    why = torch.full((size,), -1)
    for number in reversed(range(len(labels.freezes))):
        why[group[labels.freezes[number].ids]] = number
    named = torch.zeros(size, dtype=torch.bool)
    for ids in labels.params.values():
        named[group[ids.reshape(-1)]] = True
    free = named & (why < 0)
    free[group[0]] = False
    number_of = torch.full((size,), -1)
    number_of[free] = torch.arange(int(free.sum()))
    return number_of[group], int(free.sum()), why[group]


def flat_ids(ids: Tensor) -> Tensor:
    """Return ids of one parameter axis, (n,), or (groups, n) for a grouped kernel's inputs."""
    axes = [a for a, n in enumerate(ids.shape) if n > 1]
    if len(axes) < 2:
        return ids.reshape(-1)
    matrix = ids.reshape(ids.shape[0], ids.shape[1])
    count = len(distinct(matrix[:, 0]))
    return matrix[:: len(matrix) // count]


def _units_of_axis(ids: Tensor, unit_of: Tensor) -> Tensor:
    return unit_of[flat_ids(ids)]


def _cells(
    axes: Mapping[Axis, Tensor], rectangles: Sequence[Tensor], count: int
) -> list[list[Tensor]]:
    """Group units that live in the same axes alike, and those by the rows they lie in."""
    lives: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for k, units in enumerate(axes.values()):
        for unit, pieces in _counts(units):
            lives[unit].append((k, pieces))
    rows: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    for r, matrix in enumerate(rectangles):
        for i, row in enumerate(matrix):
            for unit, pieces in _counts(row):
                rows[unit].append((r, i, pieces))
    cells: dict[tuple[Any, Any], list[int]] = defaultdict(list)
    for unit in range(count):
        cells[tuple(lives[unit]), tuple(rows[unit])].append(unit)
    buckets: dict[object, list[Tensor]] = defaultdict(list)
    for (life, row), held in cells.items():
        kinds = tuple(sorted(Counter((r, pieces) for r, _, pieces in row).items()))
        buckets[life, kinds, len(held)].append(torch.tensor(held))
    return list(buckets.values())


def _counts(units: Tensor) -> list[tuple[int, int]]:
    found, pieces = units[units >= 0].unique(return_counts=True)  # type: ignore[no-untyped-call]
    return list(zip(found.tolist(), pieces.tolist(), strict=True))


def _places(cells: list[list[Tensor]]) -> dict[int, tuple[int, int]]:
    """Say of every unit which cell of which bucket it is in."""
    return {
        unit: (b, c)
        for b, pools in enumerate(cells)
        for c, units in enumerate(pools)
        for unit in units.tolist()
    }


def _profiles(
    matrix: Tensor, place: Mapping[int, tuple[int, int]]
) -> list[dict[int, dict[int, int]]]:
    """Say what each row holds: bucket → cell → positions."""
    profiles = []
    for row in matrix:
        profile: dict[int, dict[int, int]] = defaultdict(Counter)
        for unit, pieces in _counts(row):
            bucket, cell = place[unit]
            profile[bucket][cell] += pieces
        profiles.append(profile)
    return profiles


def _broken(rectangles: Sequence[Tensor], cells: list[list[Tensor]], count: int) -> list[int]:
    """List the rectangles whose rows may end up unequal though every pool keeps as many."""
    bucket_of = torch.full((count + 1,), -1)
    for b, pools in enumerate(cells):
        bucket_of[torch.cat(pools)] = b
    broken = []
    for number, matrix in enumerate(rectangles):
        held = bucket_of[matrix].sort(dim=1).values
        if not bool((held == held[:1]).all()):
            broken.append(number)
    return broken


def _matching(matrix: Tensor, place: Mapping[int, tuple[int, int]]) -> list[tuple[int, int]] | None:
    """Pair the rows of two kinds one to one, where each row is one pool of its kind.

    Heads of a fused query-key-value projection: each head's values are tied to its queries,
    rather than all heads to each other.
    """
    first: dict[int, dict[int, int]] = {}
    for row, profile in enumerate(_profiles(matrix, place)):
        if len(profile) != 1:
            return None
        ((bucket, held),) = profile.items()
        if len(held) != 1 or sum(held.values()) != matrix.shape[1]:
            return None
        (cell,) = held
        first.setdefault(bucket, {}).setdefault(cell, row)
    kinds = [list(rows.values()) for rows in first.values()]
    if len({len(rows) for rows in kinds}) != 1:
        return None
    return [(a, b) for rows in kinds[1:] for a, b in zip(kinds[0], rows, strict=True)]


def buckets_of(
    units: Units, labels: Labels, shapes: Mapping[str, tuple[int, ...]], buffers: set[str]
) -> dict[str, Bucket]:
    """Name every bucket after the axis that produces its units, and say where they lie."""
    heads = {int(u) for _, ids in labels.rows for u in distinct(units.unit_of[ids])}
    keys = list(units.axes)
    lives: list[set[int]] = [set() for _ in range(units.count)]
    for k, held in enumerate(units.axes.values()):
        for unit in distinct(held[held >= 0]).tolist():
            lives[unit].add(k)
    result: dict[str, Bucket] = {}
    for pools in units.cells:
        ids = torch.cat(pools)
        here = sorted(lives[int(ids[0])])

        def order(k: int) -> tuple[bool, bool, bool, int]:
            name, dim = keys[k]
            return name in buffers, len(shapes[name]) < 2, dim != 0, k

        name, dim = keys[min(here, key=order)]
        title, again = f"{name}:{dim}", 1
        while title in result:
            again += 1
            title = f"{name}:{dim}#{again}"
        result[title] = Bucket(
            title,
            ids,
            tuple(_slices(keys[k], units.axes[keys[k]], ids, shapes[keys[k][0]]) for k in here),
            len(pools[0]) if len(pools) > 1 else None,
            "head" if int(ids[0]) in heads else "channel",
        )
    return result


def _slices(axis: Axis, held: Tensor, ids: Tensor, shape: tuple[int, ...]) -> Slices:
    name, dim = axis
    flat = held.reshape(-1)
    rank = torch.full((int(flat.max()) + 2,), -1)
    rank[ids[ids <= flat.max()]] = torch.arange(len(ids))[ids <= flat.max()]
    place = rank[flat]
    index = (place >= 0).nonzero().squeeze(1)
    index = index[place[index].argsort(stable=True)].view(len(ids), -1)
    if held.ndim == 1:
        return Slices(name, shape, (dim,), index)
    view = (len(held), shape[0] // len(held), *shape[1:])
    return Slices(name, view, (0, 2), index)


def frozen_of(units: Units, labels: Labels) -> tuple[Frozen, ...]:
    """Say of every axis what stays and why, one entry per reason."""
    result = []
    for (name, dim), ids in labels.params.items():
        flat = flat_ids(ids).reshape(-1)
        stays = flat[units.unit_of[flat] < 0]
        counted: Counter[tuple[str, str]] = Counter()
        for number in units.reasons[stays].tolist():
            freeze = labels.freezes[number] if number >= 0 else None
            counted[(freeze.reason, freeze.node) if freeze else ("meets nothing", "")] += 1
        result += [Frozen(name, dim, n, why, node) for (why, node), n in counted.items()]
    return tuple(result)


def removed_units(graph: Graph, mask: Mapping[str, Tensor]) -> Tensor:
    """Mark the units that a mask has emptied and that can leave: bool (units,).

    A unit is empty when its every position in every parameter is masked False; parameters
    absent from the mask count as kept. Buffers follow. Units whose removal would break a
    rectangle or empty an axis stay, see `legal`.
    """
    removed = torch.ones(graph.units, dtype=torch.bool)
    seen = torch.zeros(graph.units, dtype=torch.bool)
    for bucket in graph.buckets.values():
        for part in bucket.slices:
            if part.param in graph.buffers:
                continue
            seen[bucket.ids] = True
            if part.param not in mask:
                removed[bucket.ids] = False
                continue
            merged = merged_axes(mask[part.param].cpu(), part)
            alive = merged.any(dim=1)
            removed[bucket.ids] &= ~alive[part.index].any(dim=1)
    return legal(graph, removed & seen)


def merged_axes(tensor: Tensor, part: Slices) -> Tensor:
    """View a tensor as (merged axis, everything else)."""
    view = tensor.reshape(part.view)
    count = 1
    for d in part.dims:
        count *= part.view[d]
    return view.movedim(part.dims, tuple(range(len(part.dims)))).reshape(count, -1)


def legal(graph: Graph, removed: Tensor) -> Tensor:
    """Put back the units that must stay so that pools stay even and no axis is empty.

    Of a pool that lost more than another, the later units come back.
    """
    removed = removed.clone()
    for bucket in graph.buckets.values():
        pools = removed[bucket.ids].view(-1, bucket.among or len(bucket.ids))
        lost = pools.sum(dim=1)
        if bool((lost != lost.min()).any()):
            pools = pools & (pools.cumsum(dim=1) <= lost.min())
            removed[bucket.ids] = pools.reshape(-1)
    for held in (*graph.axes.values(), *(m for m in graph.rectangles)):
        for row in held.reshape(-1, held.shape[-1]):
            if bool((row >= 0).all()) and bool(removed[row].all()):
                _put_back(graph, removed, int(row[0]))
    return removed


def _put_back(graph: Graph, removed: Tensor, unit: int) -> None:
    for bucket in graph.buckets.values():
        place = (bucket.ids == unit).nonzero()
        if len(place):
            width = bucket.among or len(bucket.ids)
            pools = bucket.ids.view(-1, width)
            removed[pools[:, int(place[0]) % width]] = False
            return


def check(graph: Graph, removed: Tensor) -> None:
    """Refuse removals that break a rectangle or empty an axis; name the bucket."""
    if removed.shape != (graph.units,):
        raise StructureError(
            f"removed has shape {tuple(removed.shape)}, the graph {graph.units} units; "
            "pass one bool per unit"
        )
    wrong = (legal(graph, removed) != removed).nonzero().flatten()
    if len(wrong):
        unit = int(wrong[0])
        name = next(n for n, b in graph.buckets.items() if bool((b.ids == unit).any()))
        raise StructureError(
            f"{len(wrong)} units cannot leave, among them one of {name!r}: its pools would be "
            "uneven or an axis empty; pass the units through legal(graph, removed) first"
        )
