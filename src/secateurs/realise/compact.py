"""Take what a mask emptied out of a model, and prove that the rest computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.errors import StructureError
from secateurs.core.example import Example, call, floats, tensors
from secateurs.core.layers import plain_module
from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.graph.reference import reference, run_double
from secateurs.graph.rewrite import rewrite
from secateurs.realise.admit import PutBack, admit, where
from secateurs.realise.attributes import Edit
from secateurs.realise.build import Original, Small, build
from secateurs.realise.calls import difference
from secateurs.realise.crossing import crossing
from secateurs.realise.generalise import Undo, generalise_, restore_, two_batches
from secateurs.realise.precise import in_double
from secateurs.realise.record import after as joined
from secateurs.realise.record import kind_of, record_of, remember_
from secateurs.realise.shrink import all_tensors, cut, follow_

How = Literal["module", "module with traced parts", "graph"]
_TOLERANCE = 1e-8
"""Of the output's standard deviation; float64 noise is some 1e-15 to 1e-12."""
_ROUNDED = 1e-6
"""A traced program that is further off has more wrong with it than rounded constants."""


@dataclass(frozen=True)
class Proof:
    """How far the small model is from what it must compute, in float64, on the user's input."""

    difference: float
    """Largest absolute difference over the output's standard deviation."""
    tolerance: float
    against: Literal["masked model", "reference"]
    """The model with masked weights itself; or, where statistics run across removed
    channels, the traced program with those channels left out of the statistics."""
    crosses: tuple[str, ...]
    """The operations that take such statistics."""
    example: str
    """The shapes of the input."""
    effect: float
    """How far what it must compute is from the dense original, in the same measure; 0 means
    that nothing removed reached the output, so that the agreement proves nothing."""
    dtype: str = "float64"


@dataclass(frozen=True)
class Compacted:
    """A smaller model and what was done to get it."""

    model: nn.Module
    removed: Mapping[str, int]
    """Bucket → units taken out."""
    mask: Mask
    """What is left of the mask, in the small shapes."""
    attributes: tuple[Edit, ...]
    """(module path, attribute, old value, new value)."""
    proof: Proof
    put_back: tuple[PutBack, ...]
    """Units that are still there, as zeros, and why."""
    how: How
    parts: tuple[str, ...]
    """Modules that are now parts of the traced program."""
    kept: Mapping[str, Mapping[int, Tensor]]
    """Parameter → dim → bool: what stayed of the axes that lost something."""


def compact(
    model: nn.Module,
    graph: Graph,
    mask: Mask,
    example: Example,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> Compacted:
    """Return a copy of `model` without the units that `mask` empties, proved; moves `optimizer`.

    A unit leaves when every one of its positions is masked. The user's class stays; modules
    that cannot express the new sizes become parts of the traced program; units that cannot
    leave are put back, as zeros, and named. Entries masked inside surviving units are zero.
    A model wrapped by torch.compile or for parallel training comes back unwrapped.

    `optimizer`, when given, is changed in place: it holds the new parameters, and its state
    is cut as they are.

    Raises:
        StructureError: the model cannot be copied, or does not run on the example in float64.
    """
    model = plain_module(model)
    with in_double():
        best, put_back = _proved(Job.of(model, graph, mask, example))
    removed, small = best.removed, best.small
    assert small is not None
    assert best.proof is not None
    shrunk = small.shrunk
    small.finish()
    shapes = {name: tuple(t.shape) for name, t in all_tensors(model).items()}
    remember_(
        small.model, joined(record_of(model), kind_of(model), shapes, shrunk.keeps, small.edits)
    )
    if optimizer is not None:
        follow_(optimizer, shrunk)
    kept = {name: dict(keep) for name, keep in shrunk.keeps.items()}
    return Compacted(
        model=small.model,
        removed=_count(graph, removed),
        mask=Mask({n: cut(m, kept.get(n, {})) for n, m in mask.items()}),
        attributes=tuple(small.edits),
        proof=best.proof,
        put_back=tuple(put_back),
        how="graph"
        if "" in small.parts
        else "module with traced parts"
        if small.parts
        else "module",
        parts=tuple(small.parts),
        kept=kept,
    )


def _proved(job: "Job") -> tuple["Attempt", list[PutBack]]:
    """Remove what can leave; put back what cannot be proved."""
    removed, put_back = admit(job.original.graph, job.original.mask)
    best = job.attempt(removed)
    if best.problem is not None:
        best, more = _without_offenders(job, removed)
        put_back += more
    assert best.small is not None
    job.free_batch_(best.small)
    return best, put_back


def _count(graph: Graph, removed: Tensor) -> dict[str, int]:
    counts = {name: int(removed[bucket.ids].sum()) for name, bucket in graph.buckets.items()}
    return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Attempt:
    """What came of removing one set of units; `problem` is None when it is proved."""

    removed: Tensor
    small: Small | None
    proof: Proof | None
    problem: str | None
    """An operation or module, and what it did."""


@dataclass(frozen=True)
class Job:
    """What every attempt needs: the original, and what it computes in float64."""

    original: Original
    outputs: list[Tensor]
    dense: list[Tensor]
    """What the unmasked original computes."""

    @classmethod
    def of(cls, model: nn.Module, graph: Graph, mask: Mask, example: Example) -> "Job":
        """Run the model as it is, and masked."""
        original = Original(model, graph, mask, floats(example, torch.float64), _TOLERANCE)
        dense = _outputs(original.copy(Mask({})), original.example)
        return cls(original, _outputs(original.copy(mask), original.example), dense)

    @cached_property
    def traced_tolerance(self) -> float:
        """How near a traced program must come, which knows some constants in float32.

        Ten times what the program with the masked weights is away from the masked model.
        """
        original = self.original
        traced = tensors(run_double(original.precise.module, original.example))
        away = difference(traced, self.outputs)
        return max(original.tolerance, 10 * away if away <= _ROUNDED else 0.0)

    def attempt(self, removed: Tensor) -> Attempt:
        """Remove units, make the result run, and compare."""
        graph = self.original.graph
        try:
            after = rewrite(graph, removed, hollow=all_tensors(self.original.model))
        except Exception as error:
            return Attempt(removed, None, None, f"the traced program cannot be rewritten: {error}")
        small = build(self.original, removed, after)
        proof, problem = self._prove(small, removed)
        if problem is not None and small.repair():
            proof, problem = self._prove(small, removed)
        return Attempt(removed, small, proof, problem)

    def free_batch_(self, small: Small) -> None:
        """Let traced parts run on other batch sizes, where a batch twice as large proves it."""
        example, parts = self.original.example, small.programs()
        batches = two_batches(example)
        if not parts or batches is None:
            return
        other, both = batches
        undo: list[Undo] = []
        with torch.no_grad():
            try:
                apart = [tensors(call(small.model, e)) for e in (example, other)]
                undo = [generalise_(part, tensors(example)[0].shape[0]) for part in parts]
                together = tensors(call(small.model, both))
                right = all(
                    torch.allclose(c, torch.cat([a, b]), rtol=1e-6, atol=1e-9)
                    for a, b, c in zip(*apart, together, strict=True)
                )
            except Exception:  # sizes that belong to the batch are elsewhere too
                right = False
        if not right:
            for part, before in zip(parts, undo, strict=False):
                restore_(part, before)

    def _prove(self, small: Small, removed: Tensor) -> tuple[Proof | None, str | None]:
        original, shown = self.original, _shapes(self.original.example)
        with torch.no_grad():
            try:
                found = tensors(call(small.model, original.example))
            except Exception as error:
                return None, f"{type(error).__name__}: {error}"
        away = difference(found, self.outputs)
        if away <= original.tolerance:
            effect = difference(self.outputs, self.dense)
            return Proof(away, original.tolerance, "masked model", (), shown, effect), None
        problem = f"differs from the masked model by {away:.3g} of the output's deviation"
        try:
            crosses = crossing(original.graph, removed)
            if not all(bool(t.isfinite().all()) for t in self.outputs):
                # A weight that is divided by its own norm has no value once it is zero.
                crosses = (*crosses, "a division by what is removed")
            if not crosses:
                return None, problem
            wanted = tensors(reference(original.precise, removed, original.example))
            away = difference(found, wanted)
            near = away <= original.tolerance
            tolerance = original.tolerance if near else self.traced_tolerance
        except Exception as error:
            return None, f"{problem}, and the traced program does not run: {error}"
        if away <= tolerance:
            effect = difference(wanted, self.dense)
            return Proof(away, tolerance, "reference", crosses, shown, effect), None
        return None, f"differs from the reference by {away:.3g} of the output's deviation"


def _outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """Run a copy."""
    with torch.no_grad():
        try:
            return [t.clone() for t in tensors(call(model, example))]
        except Exception as error:
            raise StructureError(
                f"the model does not run on the example in float64: {error}; "
                "proving a smaller model needs an example that runs"
            ) from error


def _shapes(example: Example) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors(example))


def _without_offenders(job: Job, removed: Tensor) -> tuple[Attempt, list[PutBack]]:
    """Put back, by bisection, the buckets without which everything else is proved."""
    buckets = [name for name, b in job.original.graph.buckets.items() if bool(removed[b.ids].any())]
    back: list[PutBack] = []
    best = job.attempt(torch.zeros_like(removed))
    if best.problem is not None:
        raise StructureError(
            f"even the unpruned copy fails its proof: {best.problem}; "
            "check that the model returns finite numbers on the example, the same each time"
        )

    def add(good: Attempt, group: list[str]) -> Attempt:
        wanted = good.removed.clone()
        for name in group:
            ids = job.original.graph.buckets[name].ids
            wanted[ids] = removed[ids]
        tried = job.attempt(wanted)
        if tried.problem is None:
            return tried
        if len(group) == 1:
            ids = job.original.graph.buckets[group[0]].ids
            back.append(
                PutBack(
                    group[0],
                    int(removed[ids].sum()),
                    tried.problem,
                    where(job.original.graph, group[0]),
                )
            )
            return good
        half = len(group) // 2
        return add(add(good, group[:half]), group[half:])

    half = max(1, len(buckets) // 2)
    for group in (buckets[:half], buckets[half:]):
        if group:
            best = add(best, group)
    return best, back
