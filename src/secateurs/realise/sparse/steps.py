"""The steps of an assembled network, with every number the kernels need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.core.errors import ShapeError
from secateurs.realise.sparse import native
from secateurs.realise.sparse.assemble import Assembly, Fold, Segment, Work
from secateurs.realise.sparse.choice import Choice
from secateurs.realise.sparse.encode import Encoded, encode, quantised
from secateurs.realise.sparse.layout import Layout, taps
from secateurs.realise.sparse.native import Entries, Step
from secateurs.realise.sparse.ops import Mean, Pool, Product, Sum

_SHARES = 4
"""Items a thread should find in a step, so that a slow thread delays the others little."""
_NONE = (None, None)
_MOST_PLANES = 1 << 16


@dataclass
class Steps:
    """An array of steps, and what they point to."""

    steps: Any
    outside: list[str]
    held: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Writer:
    """Writes the steps of one assembly."""

    assembly: Assembly
    instructions: str
    threads: int

    def segment(
        self, segment: Segment, encoded: Mapping[str, Encoded], choices: Mapping[str, Choice]
    ) -> Steps:
        """Return a segment's steps; every product's entries are given."""
        steps = (Step * len(segment.works))()
        held: list[Any] = []
        for step, work in zip(steps, segment.works, strict=True):
            if isinstance(work.op, Fold):
                self._fold(step, work, segment.outside)
            elif isinstance(work.op, Product):
                self.product(step, work, encoded[work.op.name], choices[work.op.name], held)
            else:
                self._other(step, work)
        return Steps(steps, segment.outside, held)

    def product(
        self, step: Step, work: Work, encoded: Encoded, choice: Choice, held: list[Any]
    ) -> None:
        """Write the step of a linear layer or convolution; what it points to goes into `held`."""
        op, made = work.op, self.assembly.layouts[work.makes]
        assert isinstance(op, Product)
        source = self.assembly.layouts[work.reads[0]]
        check(encoded, source, made, self.assembly, native.lanes(self.instructions))
        self._frame(step, native.PRODUCT, work, made)
        held.append(encoded)
        given = native.address(encoded.offsets), native.address(encoded.values)
        floats, small = (given, _NONE) if encoded.scale is None else (_NONE, given)
        step.layer = Entries(
            encoded.blocks,
            encoded.groups,
            native.address(encoded.starts),
            *floats,
            *(native.address(a) for a in (encoded.filters, encoded.bias)),
            made.columns,
            made.pitch,
            op.low,
            op.high,
            *small,
            native.address(encoded.scale),
            source.plane,
        )
        step.together = encoded.together
        step.positions = made.positions
        step.residual = op.residual is not None
        if made.plane == 1:
            step.kind, tiles = native.ROWS, 1
        else:
            step.vectors = choice.vectors
            tiles = made.images * -(
                -made.positions // (choice.vectors * native.lanes(self.instructions))
            )
        wanted = _SHARES * self.threads if self.threads > 1 else 1
        step.chunk = -(-encoded.groups // min(encoded.groups, max(1, -(-wanted // tiles))))
        step.items = tiles * -(-encoded.groups // step.chunk)

    def _frame(self, step: Step, kind: int, work: Work, made: Layout) -> None:
        """Write what all kinds of steps have."""
        step.kind, step.instructions = kind, native.INSTRUCTIONS.index(self.instructions)
        step.made = self._planes(work.makes)
        step.outside, step.low, step.high = -1, -inf, inf
        step.items = made.images * made.channels
        for place, name in zip(("source", "other"), work.reads, strict=False):
            if name in self.assembly.at:
                setattr(step, place, self._planes(name))

    def _fold(self, step: Step, work: Work, outside: list[str]) -> None:
        fold, made = work.op, self.assembly.layouts[work.makes]
        assert isinstance(fold, Fold)
        self._frame(step, native.FOLD, work, made)
        step.strides[:] = fold.strides
        step.window[:], step.stride[:], step.pad[:] = fold.phases, fold.stride, fold.padding
        if fold.source is None:
            step.outside = outside.index(fold.value)
        step.source.rows, step.source.columns = fold.rows, fold.columns
        if made.plane == 1 and fold.phases == fold.stride == (1, 1):
            # A vector: one row instead of many planes of one position.
            step.items = step.made.channels = 1
            step.made.columns = step.made.pitch = step.made.plane = made.channels
            step.source.columns = made.channels
            step.strides[3] = fold.strides[1]

    def _other(self, step: Step, work: Work) -> None:
        op, made = work.op, self.assembly.layouts[work.makes]
        kinds = {Pool: native.POOL, Mean: native.MEAN, Sum: native.SUM}
        self._frame(step, kinds[type(op)], work, made)
        if isinstance(op, Pool):
            step.window[:], step.stride[:], step.pad[:] = op.window, op.stride, op.padding
        elif isinstance(op, Sum):
            step.low, step.high, step.residual = op.low, op.high, op.other is not None

    def _planes(self, buffer: str) -> native.Planes:
        return native.planes(self.assembly.layouts[buffer], self.assembly.at[buffer])


def entries(op: Product, source: Layout, made: Layout, choice: Choice) -> Encoded:
    """Encode a product's weights for the layout of what it reads."""
    where = taps(op)
    block = choice.block if made.plane > 1 else op.weight.shape[1]
    inputs, count = op.weight.shape[1], op.weight[0, 0].numel()
    channel = np.arange(op.groups)[:, None] * inputs + np.arange(inputs)
    plane = channel[:, :, None] * prod(where.phases) + where.phase
    weight, scale = op.weight.flatten(1), None
    if choice.bits == 8:
        weight, scale = quantised(weight)
        places = plane
    else:
        places = plane * source.plane + where.dy * source.pitch + where.dx
    return encode(
        weight,
        op.bias,
        places.reshape(op.groups, inputs * count),
        together=choice.together,
        block=block * count,
        scale=scale,
    )


def fits_small(op: Product) -> bool:
    """Tell whether a product may have weights of 8 bits: one tap a channel, where the output is."""
    planes = op.weight.shape[1] * op.groups
    single = op.weight.shape[2:] == (1, 1) and op.padding == (0, 0)
    return single and planes <= _MOST_PLANES and bool(op.weight.isfinite().all())


def check(encoded: Encoded, source: Layout, made: Layout, assembly: Assembly, lanes: int) -> None:
    """Refuse entries that would reach outside what they may read or write.

    Raises:
        ShapeError: an offset, a filter or a range of entries does not fit.
    """
    offsets, filters, starts = encoded.offsets, encoded.filters, encoded.starts
    unit = 1 if encoded.scale is None else source.plane
    last = source.image - source.head + 2 * lanes
    overshoot = -(-made.positions // lanes) * lanes
    if len(offsets) and (
        int(offsets.min()) * unit < -source.head
        or int(offsets.max()) * unit + made.positions > last
    ):
        raise ShapeError(
            f"offsets from {offsets.min()} to {offsets.max()} leave an input of {source.image} "
            "floats"
        )
    if len(filters) == 0 or int(filters.min()) < 0 or int(filters.max()) >= made.channels:
        raise ShapeError(f"filters {filters} do not fit an output of {made.channels} channels")
    flat: NDArray[np.int32] = starts.reshape(-1)
    if int(flat[0]) != 0 or int(flat[-1]) != len(offsets) or bool((np.diff(flat) < 0).any()):
        raise ShapeError(f"entries {flat[:4]} ... {flat[-1:]} are not in order")
    if len(encoded.values) != len(offsets) or len(encoded.bias) != made.channels:
        raise ShapeError("a layer's values or biases do not fit its offsets or filters")
    if encoded.scale is not None and (
        len(encoded.scale) != made.channels or made.plane == 1 < source.plane
    ):
        raise ShapeError("a layer's scales do not fit its filters, or its input its output")
    if made.plane > 1 and overshoot > made.plane:
        raise ShapeError(f"{made.positions} positions do not fit a plane of {made.plane} floats")
