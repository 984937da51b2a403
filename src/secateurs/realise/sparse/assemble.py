"""Put a lowered network together: where every value lies, and the steps that make it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from secateurs.core.errors import ShapeError
from secateurs.realise.sparse.choice import Choice
from secateurs.realise.sparse.layout import (
    ALIGN,
    Layout,
    Reach,
    Size,
    fold_padding,
    folded,
    pitch,
    planes,
    taps,
)
from secateurs.realise.sparse.ops import Call, Mean, Op, Pool, Product, Sum, reads

Shape = tuple[int, ...]
FARTHEST = 1 << 31
"""Floats that an offset of 32 bits reaches."""


@dataclass(frozen=True)
class Fold:
    """A copy of a value into planes: of another layout, or split into phases."""

    value: str
    made: str
    """The buffer."""
    source: Layout | None
    """None where the value is torch's."""
    strides: tuple[int, int, int, int]
    rows: int
    columns: int
    phases: Size = (1, 1)
    stride: Size = (1, 1)
    padding: Size = (0, 0)


@dataclass(frozen=True)
class Work:
    """One operation, the buffers it reads, and the one it makes."""

    op: Op | Fold
    reads: tuple[str, ...] = ()
    makes: str = ""


@dataclass
class Segment:
    """Steps that run in one call of the kernels."""

    works: list[Work] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """Values of torch that they read."""


@dataclass
class Assembly:
    """Everything but the numbers: what runs in which order, and where values lie."""

    parts: list[Segment | Op]
    layouts: dict[str, Layout]
    """Buffer → its layout."""
    at: dict[str, int]
    """Buffer → where it begins in the arena, in floats."""
    size: int
    """Floats of the arena."""
    homes: dict[str, Layout]
    """Values that live in planes."""


def assemble(
    ops: Mapping[str, Op], shapes: Mapping[str, Shape], choices: Mapping[str, Choice]
) -> Assembly:
    """Lay out the values and order the work.

    Raises:
        ShapeError: an image is larger than offsets reach.
    """
    return _Assembler(ops, shapes, choices).assembly()


class _Assembler:
    def __init__(
        self, ops: Mapping[str, Op], shapes: Mapping[str, Shape], choices: Mapping[str, Choice]
    ) -> None:
        self.ops, self.shapes = ops, shapes
        self.native = {n for n, op in ops.items() if _is_native(op, choices)}
        self.pitches, self.reaches = self._classes()
        self.layouts: dict[str, Layout] = {}
        self.parts: list[Segment | Op] = []
        self.homes = {name: self._home(name) for name in self.native}

    def assembly(self) -> Assembly:
        for op in self.ops.values():
            if op.name in self.native:
                self._native(op)
            else:
                self.parts.append(op)
        for name, layout in self.layouts.items():
            if layout.image > FARTHEST:
                raise ShapeError(
                    f"{name!r} takes {layout.image} floats an image; the sparse kernels reach "
                    f"{FARTHEST}, so take smaller inputs or the dense model"
                )
        at, size = _places(self._lives(), self.layouts)
        return Assembly(self.parts, self.layouts, at, size, self.homes)

    def _classes(self) -> tuple[dict[Size, int], dict[Size, Reach]]:
        """Settle the pitch of every size of image, and how far filters reach over its edges."""
        needs: dict[Size, list[tuple[int, Reach]]] = {}
        reaches: dict[Size, Reach] = {}
        for name in self.native:
            op = self.ops[name]
            if not isinstance(op, Product) or op.linear:
                continue
            source, made = (_size(self.shapes[n]) for n in (op.source, name))
            split, reach = folded(op, source, made), taps(op).reach
            needs.setdefault(made, []).append(((split or source)[1], reach))
            if split is None:
                reaches[made] = reaches.get(made, Reach()) | reach
        return {size: pitch(size[1], need) for size, need in needs.items()}, reaches

    def _image(self, shape: Shape) -> Layout:
        size = _size(shape)
        reach, step = self.reaches.get(size, Reach()), self.pitches.get(size, size[1])
        return planes(shape[0], shape[1], size, step, reach, size[0])

    def _home(self, name: str) -> Layout:
        op, shape = self.ops[name], self.shapes[name]
        if isinstance(op, Product) and op.linear:
            return _tokens(shape)
        return self._image(shape)

    def _native(self, op: Op) -> None:
        made = self.homes[op.name]
        self.layouts[op.name] = made
        if isinstance(op, Product):
            source = self._tokens_of(op) if op.linear else self._taps_of(op)
            if op.residual is None:
                other: tuple[str, ...] = ()
            elif op.linear:
                other = (self._copy_tokens(op.residual, made),)
            else:
                other = (self._planes_of(op.residual, made),)
            self._do(Work(op, (source, *other), op.name))
        else:
            names = reads(op)
            wanted = made if isinstance(op, Sum) else self._image(_four(self.shapes[names[0]]))
            self._do(Work(op, tuple(self._planes_of(n, wanted) for n in names), op.name))

    def _planes_of(self, value: str, layout: Layout) -> str:
        """Return a buffer that holds a value in a layout, its own or a copy."""
        home = self.homes.get(value)
        if home == layout:
            return value
        shape = self.shapes[value]
        made = f"{value}:{layout.rows}x{layout.columns}"
        if made not in self.layouts:
            self.layouts[made] = layout
            strides = _image_strides(shape) if home is None else _strides(home)
            rows, columns = _size(shape)
            self._do(Work(Fold(value, made, home, strides, rows, columns), (value,), made))
        return made

    def _taps_of(self, op: Product) -> str:
        """Return the buffer that a convolution reads: its source, or its phases."""
        shape, made = self.shapes[op.source], _size(self.shapes[op.name])
        split = folded(op, _size(shape), made)
        if split is None:
            return self._planes_of(op.source, self._image(shape))
        where, home = taps(op), self.homes.get(op.source)
        name = f"{op.name}:phases"
        self.layouts[name] = planes(
            shape[0], shape[1] * prod(where.phases), split, self.pitches[made], where.reach, made[0]
        )
        rows, columns = _size(shape)
        fold = Fold(
            op.source, name, home, _image_strides(shape) if home is None else _strides(home),
            rows, columns, where.phases, op.stride, fold_padding(op),
        )  # fmt: skip
        self._do(Work(fold, (op.source,), name))
        return name

    def _tokens_of(self, op: Product) -> str:
        return self._copy_tokens(op.source, _tokens(self.shapes[op.source]))

    def _copy_tokens(self, value: str, layout: Layout) -> str:
        """Return a buffer that holds a value's last axis in planes, its own or a copy."""
        home, shape, made = self.homes.get(value), self.shapes[value], f"{value}:tokens"
        if home == layout:
            return value
        if made in self.layouts:
            return made
        self.layouts[made] = layout
        assert home is None or home.rows * home.columns == 1, f"{value} is an image"
        strides = (0, 1, 0, shape[-1]) if home is None else (0, home.plane, 0, home.image)
        fold = Fold(value, made, home, strides, 1, layout.columns)
        self._do(Work(fold, (value,), made))
        return made

    def _do(self, work: Work) -> None:
        if not self.parts or not isinstance(self.parts[-1], Segment):
            self.parts.append(Segment())
        segment = self.parts[-1]
        assert isinstance(segment, Segment)
        segment.works.append(work)
        fold = work.op
        if isinstance(fold, Fold) and fold.source is None and fold.value not in segment.outside:
            segment.outside.append(fold.value)

    def _lives(self) -> dict[str, tuple[int, int]]:
        """Say when each buffer is made and when it is read for the last time."""
        lives: dict[str, tuple[int, int]] = {}
        roots: dict[str, set[str]] = {name: {name} for name in self.homes}
        moment = 0
        for part in self.parts:
            works = part.works if isinstance(part, Segment) else [part]
            for work in works:
                moment += 1
                if isinstance(work, Work):
                    lives[work.makes] = (moment, moment)
                    used = set(work.reads)
                else:
                    used = set()
                    for value in reads(work):
                        used |= roots.get(value, set())
                    if isinstance(work, Call) and _may_alias(work):
                        roots[work.name] = used
                for buffer in used & lives.keys():
                    lives[buffer] = (lives[buffer][0], moment)
        return lives


def _is_native(op: Op, choices: Mapping[str, Choice]) -> bool:
    if isinstance(op, Product):
        return choices.get(op.name, Choice()).together > 0
    return isinstance(op, (Pool, Mean, Sum))


def _may_alias(call: Call) -> bool:
    """Tell whether a call may return its argument's own memory; Python's functions do."""
    schema = getattr(call.node.target, "_schema", None)
    return schema is None or any(r.alias_info is not None for r in schema.returns)


def _size(shape: Shape) -> Size:
    """Return the height and width of an image, (N, C, H, W), (N, C, L) or (N, C)."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2] if len(shape) == 3 else 1)


def _four(shape: Shape) -> Shape:
    return (*shape[:2], *_size(shape))


def _tokens(shape: Shape) -> Layout:
    """Lay out tokens, (..., channels), as one image of one row."""
    count = prod(shape[:-1])
    return planes(1, shape[-1], (1, count), count, Reach(), 1)


def _image_strides(shape: Shape) -> tuple[int, int, int, int]:
    rows, columns = _size(shape)
    return shape[1] * rows * columns, rows * columns, columns, 1


def _strides(layout: Layout) -> tuple[int, int, int, int]:
    return layout.image, layout.plane, layout.pitch, 1


def _places(
    lives: Mapping[str, tuple[int, int]], layouts: Mapping[str, Layout]
) -> tuple[dict[str, int], int]:
    """Give every buffer a place, the largest first, none over another that lives meanwhile."""
    at: dict[str, int] = {}
    sizes = {name: -(-(layouts[name].size + 2 * ALIGN) // ALIGN) * ALIGN for name in lives}
    end = 0
    for name in sorted(lives, key=lambda n: -sizes[n]):
        first, last = lives[name]
        taken = sorted(
            (at[other], at[other] + sizes[other])
            for other in at
            if lives[other][0] <= last and first <= lives[other][1]
        )
        place = 0
        for start, stop in taken:
            if place + sizes[name] <= start:
                break
            place = max(place, stop)
        at[name] = place
        end = max(end, place + sizes[name])
    return at, end + 16 * ALIGN
