"""What would be cut, before anything is: every bucket, every frozen axis and why, and the costs.

A plan is a value: it can be printed, saved as JSON, edited there or here, and applied.
Applying returns a new model and leaves the old one alone, so undoing is keeping the old one.
"""

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.cut import keep_top
from secateurs.core.errors import BudgetError, FileError, StructureError, UnknownNameError
from secateurs.core.example import Example
from secateurs.core.site import Scores
from secateurs.graph.cost import predict
from secateurs.graph.graph import Graph
from secateurs.measure.report import write_whole
from secateurs.realise.compact import Compacted, compact
from secateurs.realise.shrink import all_tensors, kept_axes, small_shape
from secateurs.realise.units import mask_of

FORMAT, VERSION = "secateurs plan", 1


@dataclass(frozen=True)
class Line:
    """One bucket of coupled units and how many of them stay."""

    bucket: str
    units: int
    keep: int
    pools: int
    """The same number stays in each of so many pools."""
    kind: str
    axes: tuple[str, ...]
    """Where the units lie, `layer1.0.conv1.weight axis 0`; these are cut together."""


@dataclass(frozen=True)
class Left:
    """One axis, or a part of it, that is left alone."""

    axis: str
    count: int
    reason: str
    where: str


@dataclass(frozen=True)
class Costs:
    """What a model costs; predicted from shapes, not measured."""

    parameters: int
    bytes: int
    """Of all parameters and buffers, in their dtypes."""
    macs: int
    """Of one call on the example, batch included."""


@dataclass(frozen=True)
class Plan:
    """What would be cut and what it would cost."""

    lines: tuple[Line, ...]
    left: tuple[Left, ...]
    dense: Costs
    predicted: Costs

    def __str__(self) -> str:
        """Show one line per bucket and per frozen axis, and the costs."""
        text = [f"{_ratio(self.dense, self.predicted)}", ""]
        for line in self.lines:
            text.append(f"{line.bucket}: keep {line.keep} of {line.units} {line.kind}s")
            text += [f"    with {axis}" for axis in line.axes[1:]]
        text += [f"{a.axis}: {a.count} left alone, {a.reason}" for a in self.left]
        return "\n".join(text)


def plan(model: nn.Module, graph: Graph, *, density: float | Mapping[str, float] = 1.0) -> Plan:
    """Say what keeping a fraction of every bucket would cut and cost; nothing is changed.

    `density` is one fraction for all, or bucket name patterns → fraction (others stay whole).

    Raises:
        BudgetError: a density is not above 0 and at most 1.
        UnknownNameError: a pattern matches no bucket.
    """
    lines = tuple(
        Line(
            bucket=name,
            units=len(bucket.ids),
            keep=len(bucket.ids),
            pools=len(bucket.ids) // (bucket.among or len(bucket.ids)),
            kind=bucket.kind,
            axes=tuple(dict.fromkeys(_axis(s.param, s.dims) for s in bucket.slices)),
        )
        for name, bucket in graph.buckets.items()
    )
    left = tuple(Left(_axis(f.param, (f.dim,)), f.count, f.reason, f.node) for f in graph.frozen)
    dense = _costs(model, graph, lines)
    whole = Plan(lines, left, dense, dense)
    densities = density if isinstance(density, Mapping) else {"*": density}
    return edit(whole, model, graph, densities)


def edit(plan: Plan, model: nn.Module, graph: Graph, densities: Mapping[str, float]) -> Plan:
    """Return a plan with other densities, bucket name patterns → fraction kept.

    Every pool keeps at least one unit. Raises as `plan` does.
    """
    names = [line.bucket for line in plan.lines]
    lines = {line.bucket: line for line in plan.lines}
    for pattern, density in densities.items():
        if not 0 < density <= 1:
            raise BudgetError(f"density {density} of {pattern!r} is not above 0 and at most 1")
        hits = fnmatch.filter(names, pattern)
        if not hits and pattern != "*":
            raise UnknownNameError(
                f"no bucket matches {pattern!r}; there are {', '.join(names[:5])}"
                + (", ..." if len(names) > 5 else "")
            )
        for name in hits:
            line = lines[name]
            each = max(1, round(density * (line.units // line.pools)))
            lines[name] = replace(line, keep=each * line.pools)
    chosen = tuple(lines.values())
    return replace(plan, lines=chosen, predicted=_costs(model, graph, chosen))


def apply(
    plan: Plan,
    model: nn.Module,
    graph: Graph,
    example: Example,
    *,
    scores: Scores | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Compacted:
    """Cut what a plan says out of a copy of the model, and prove it; moves `optimizer`.

    Of every bucket the units with the highest scores, bucket name → (units,), stay; without
    scores those with the largest weights.

    Raises:
        BudgetError: a line keeps none, too many, or unequal numbers per pool.
        StructureError: the plan was made for another model.
    """
    check_plan(plan, graph)
    scores = scores if scores is not None else _sizes(model, graph)
    removed = _removed(graph, plan.lines, scores)
    return compact(model, graph, mask_of(graph, removed), example, optimizer=optimizer)


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as JSON; `keep` of every line may be edited there.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, json.dumps({"format": FORMAT, "version": VERSION, **asdict(plan)}, indent=1))


def load_plan(path: str | Path) -> Plan:
    """Read a plan back. Its predicted costs are those it was saved with.

    Raises:
        FileError: the file is missing, damaged, or no plan; names the field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{str(path)!r} does not exist; save_plan(plan, path) writes one")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise FileError(f"{str(path)!r} is not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(f"{str(path)!r}: field 'format' is not {FORMAT!r}; it is another file")
    try:
        lines = [Line(**{**line, "axes": tuple(line["axes"])}) for line in content["lines"]]
        left = [Left(**axis) for axis in content["left"]]
        costs = [Costs(**content[key]) for key in ("dense", "predicted")]
    except (KeyError, TypeError) as error:
        raise FileError(f"{str(path)!r}: a field is missing or unknown ({error})") from error
    return Plan(tuple(lines), tuple(left), costs[0], costs[1])


def check_plan(plan: Plan, graph: Graph) -> None:
    """Raise what `apply` raises, unless the plan fits the graph."""
    names = {line.bucket: line for line in plan.lines}
    if names.keys() != graph.buckets.keys():
        other = sorted(names.keys() ^ graph.buckets.keys())[0]
        raise StructureError(
            f"this plan was made for another model: bucket {other!r} is in one of them only; "
            "plan this model anew"
        )
    for name, line in names.items():
        units = len(graph.buckets[name].ids)
        if line.units != units or not 0 < line.keep <= units or line.keep % line.pools:
            raise BudgetError(
                f"cannot keep {line.keep} of {units} units of {name!r}; "
                f"keep {line.pools} to {units}, a multiple of {line.pools}"
            )


def _removed(graph: Graph, lines: tuple[Line, ...], scores: Scores) -> Tensor:
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for line in lines:
        bucket = graph.buckets[line.bucket]
        kept = keep_top(scores[line.bucket].cpu(), line.keep // line.pools, bucket.among)
        removed[bucket.ids.cpu()[~kept]] = True
    return removed


def _sizes(model: nn.Module, graph: Graph) -> Scores:
    """Sum the squared weights of every unit."""
    tensors = dict(model.named_parameters())
    count = graph.units
    total = torch.zeros(count + 1, dtype=torch.float64)
    for (name, dim), units in graph.axes.items():
        if name in tensors and units.dim() == 1:
            others = [d for d in range(tensors[name].dim()) if d != dim]
            square = tensors[name].detach().double().square()
            each = (square.sum(dim=others) if others else square).cpu()
            # Positions without a unit, -1, land in the last place.
            total.index_add_(0, units.cpu() % (count + 1), each)
    return {name: total[bucket.ids.cpu()] for name, bucket in graph.buckets.items()}


def _costs(model: nn.Module, graph: Graph, lines: tuple[Line, ...]) -> Costs:
    ones = {line.bucket: torch.arange(line.units, 0, -1.0) for line in lines}
    removed = _removed(graph, lines, ones)
    keeps = kept_axes(graph, removed)
    seen: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in all_tensors(model).items():
        seen.setdefault(id(tensor), (name, tensor))
    sizes = {
        name: torch.Size(small_shape(tuple(t.shape), keeps.get(name, {}))).numel()
        for name, t in seen.values()
    }
    weights = dict(model.named_parameters())
    decision = {n: ~removed[b.ids.cpu()] for n, b in graph.buckets.items()}
    return Costs(
        parameters=sum(n for name, n in sizes.items() if name in weights),
        bytes=sum(sizes[name] * t.element_size() for name, t in seen.values()),
        macs=predict(graph, decision).macs,
    )


def _axis(param: str, dims: tuple[int, ...]) -> str:
    return f"{param} axis {dims[-1] if len(dims) == 1 else 1}"


def _ratio(dense: Costs, small: Costs) -> str:
    parts = [
        f"{getattr(small, what):,} of {getattr(dense, what):,} {what}"
        for what in ("parameters", "bytes", "macs")
    ]
    return ", ".join(parts)
