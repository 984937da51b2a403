"""Trace a model, send labels through it, and settle what goes together."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from secateurs.core.errors import StructureError
from secateurs.core.example import Example
from secateurs.core.layers import plain_module
from secateurs.graph.graph import Contraction, Frozen, Graph
from secateurs.graph.labels import Labels, Layer
from secateurs.graph.program import Program, capture
from secateurs.graph.rules.step import NONE, Product, Rule
from secateurs.graph.units import Units, buckets_of, frozen_of, settle
from secateurs.graph.walk import Walk

Progress = Callable[[str, int, int], None]
"""(phase, done, of): called while tracing."""


def trace(
    model: nn.Module,
    example: Example,
    *,
    time_limit_s: float = 600.0,
    progress: Progress | None = None,
    heads: bool = False,
    rules: Mapping[str, Rule] | None = None,
    tie: Sequence[Sequence[tuple[str, int]]] = (),
    freeze: Sequence[str] = (),
) -> Graph:
    """Return how a model is wired; the model is not changed.

    It is traced in evaluation mode, and in training mode too where a parameter has no part
    in evaluation, such as an auxiliary head's. `heads` makes whole rows of rectangles the
    units: attention heads, convolution groups. `rules` adds or replaces rules, by the name
    of an operation ("mylib.op", "aten.op"). Each entry of `tie` lists axes,
    (parameter, dim), whose positions go together one by one; `freeze` holds patterns of
    parameters ("head.*") or axes ("conv.weight:0") that stay. The time limit holds in the
    main thread, where signals reach.

    Raises:
        StructureError: the model cannot be traced; names the operation and the line.
    """
    tell = progress or (lambda phase, done, of: None)
    tell("trace", 0, 1)
    program = capture(model, example, time_limit_s=time_limit_s)
    tell("trace", 1, 1)
    held = {name for name, _ in plain_module(model).named_parameters()}
    return wire(
        program,
        held,
        lambda: _in_training(model, example, time_limit_s),
        lambda done, of: tell("label", done, of),
        heads=heads,
        rules=rules or {},
        tie=tie,
        freeze=freeze,
    )


def wire(
    program: Program,
    held: set[str],
    in_training: Callable[[], Program | None],
    progress: Callable[[int, int], None] | None = None,
    *,
    heads: bool = False,
    rules: Mapping[str, Rule] | None = None,
    tie: Sequence[Sequence[tuple[str, int]]] = (),
    freeze: Sequence[str] = (),
) -> Graph:
    """Send labels through a captured program; `held` names its parameters."""
    training: Program | None = None
    columns: frozenset[str] = frozenset()
    while True:
        labels = Labels()
        walk = Walk(program, labels, rules or {}, heads, columns).run(progress)
        unread = _unread(program, labels, held)
        if unread:
            training = training or in_training()
            if training is not None:
                Walk(training, labels, rules or {}, heads, columns).run()
                unread = _unread(program, labels, held)
        _declare(program, labels, tie, freeze)
        units = settle(labels)
        # A split whose rows cannot leave, such as (3, width) of a packed projection, is
        # walked again with columns as its units.
        stuck = frozenset(n for n, ids in labels.rows if bool((units.unit_of[ids] < 0).all()))
        if stuck <= columns:
            return _graph(program, walk, labels, units, held, unread)
        columns |= stuck


def _in_training(model: nn.Module, example: Example, time_limit_s: float) -> Program | None:
    """Trace training mode; a model that cannot run so adds nothing."""
    try:
        return capture(model, example, training=True, time_limit_s=time_limit_s)
    except StructureError:
        return None


def _unread(program: Program, labels: Labels, held: set[str]) -> list[str]:
    """List the parameters that no operation has read, as far as the walks have gone."""
    read = {name for name, _ in labels.params} | labels.read
    return [name for name in program.tensors if name in held and name not in read]


def _declare(
    program: Program,
    labels: Labels,
    tie: Sequence[Sequence[tuple[str, int]]],
    freeze: Sequence[str],
) -> None:
    for axes in tie:
        found = [_axis(program, labels, name, dim) for name, dim in axes]
        for (name, dim), ids in zip(axes[1:], found[1:], strict=True):
            if len(ids) != len(found[0]):
                raise StructureError(
                    f"cannot tie {name}:{dim} with {len(ids)} positions to "
                    f"{axes[0][0]}:{axes[0][1]} with {len(found[0])}; tie axes of one length"
                )
            labels.unify(found[0], ids)
    for pattern in freeze:
        hits = [
            ids
            for (name, dim), ids in labels.params.items()
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(f"{name}:{dim}", pattern)
        ]
        if not hits:
            raise StructureError(f"freeze={pattern!r} fits no axis; use names like {_some(labels)}")
        for ids in hits:
            labels.freeze(ids, f"declared with freeze={pattern!r}")


def _axis(program: Program, labels: Labels, name: str, dim: int) -> Tensor:
    key = (program.names.get(name, name), dim)
    if key not in labels.params:
        raise StructureError(f"cannot tie {name}:{dim}; use axes like {_some(labels)}")
    return labels.params[key].reshape(-1)


def _some(labels: Labels) -> str:
    return ", ".join(f"{name}:{dim}" for name, dim in list(labels.params)[:4])


def _graph(
    program: Program,
    walk: Walk,
    labels: Labels,
    units: Units,
    held: set[str],
    unread: list[str],
) -> Graph:
    shapes = {name: tuple(tensor.shape) for name, tensor in program.tensors.items()}
    buffers = frozenset(shapes) - held
    frozen = frozen_of(units, labels) + tuple(
        Frozen(name, dim, size, "no operation reads it")
        for name in unread
        for dim, size in enumerate(shapes[name])
        if size > 1
    )
    layers: dict[str, list[Layer]] = {}
    for (name, dim), ids in labels.params.items():
        layers.setdefault(name, []).append(Layer(ids, dim))
    contractions = tuple(_contraction(p, units.unit_of) for p in walk.products)
    return Graph(
        shapes=shapes,
        aliases={a: b for a, b in program.names.items() if a != b and a in _user_names(program)},
        axes=dict(units.axes),
        buckets=buckets_of(units, labels, shapes, set(buffers)),
        frozen=frozen,
        contractions=contractions,
        module=program.module,
        macs=sum(c.factor * len(c.out) * len(c.inner) * _rest(c) // c.groups for c in contractions),
        units=units.count,
        unit_of=units.unit_of,
        values=walk.values,
        layers={name: tuple(held) for name, held in layers.items()},
        rectangles=tuple(units.unit_of[ids] for ids in labels.rectangles),
        names=program.names,
        buffers=buffers,
        recorded=program.recorded,
    )


def _user_names(program: Program) -> set[str]:
    return {name for name in program.names if not name.startswith(("_param_con", "_tensor_con"))}


def _contraction(product: Product, unit_of: Tensor) -> Contraction:
    out, inner = (_units(unit_of, ids) for ids in (product.out, product.inner))
    others = tuple(unit_of[ids] for ids in product.others)
    return Contraction(product.node, product.factor, out, inner, product.groups, others)


def _units(unit_of: Tensor, ids: Tensor) -> Tensor:
    return NONE if ids is NONE else unit_of[ids]


def _rest(contraction: Contraction) -> int:
    size = 1
    for held in contraction.others:
        size *= len(held)
    return size
