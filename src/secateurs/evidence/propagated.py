"""Importance sent backwards from the last features to every channel, weights alone."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateurs.core.cut import keep_top
from secateurs.core.example import Example, floats, tensors
from secateurs.core.site import Decision, Quota, Scores
from secateurs.evidence.batches import evaluating
from secateurs.evidence.bound import bound
from secateurs.evidence.interpret import Program, operation, units_of
from secateurs.graph.graph import Graph

_CONVS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = {f"aten.{name}" for name in ("linear", "addmm", "convolution", *_CONVS)}
_NORMS = {"aten.batch_norm", "aten._native_batch_norm_legit_no_training"}


@dataclass
class Book:
    """What one sweep knows: the scores so far, and what has been decided."""

    graph: Graph
    quota: Quota
    scores: Tensor
    """(units + 1,): the last is for positions without a unit."""
    keep: Tensor
    """1 or 0 by unit, (units + 1,)."""
    places: dict[str, int] = field(default_factory=dict)
    """Bucket → how many places make its units."""
    reached: dict[str, int] = field(default_factory=dict)
    """Bucket → how many of them the sweep has met."""
    decided: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def open(cls, graph: Graph, quota: Quota, decided: Decision, device: torch.device) -> "Book":
        """Begin with what is already decided."""
        scores = torch.zeros(graph.units + 1, dtype=torch.float64, device=device)
        book = cls(graph, quota, scores, torch.ones_like(scores), decided=dict(decided))
        for name in decided:
            book._cut(name)
        return book

    def reach(self, units: Tensor, received: Tensor) -> Tensor:
        """Add what a place receives, (n,), decide the buckets it completes; → 1 or 0, (n,)."""
        self.scores.index_add_(0, units, received)
        for name in self._buckets(units):
            self.reached[name] = self.reached.get(name, 0) + 1
            complete = self.reached[name] == self.places[name]
            if complete and name in self.quota and name not in self.decided:
                self.decided[name] = self.best(name, self.quota[name])
                self._cut(name)
        return self.keep[units]

    def expect(self, units: Tensor) -> None:
        """Count one more place that makes these units."""
        for name in self._buckets(units):
            self.places[name] = self.places.get(name, 0) + 1

    def of(self, name: str) -> Tensor:
        """Return the scores of a bucket's units."""
        return self.scores[self.graph.buckets[name].ids.to(self.scores.device)]

    def best(self, name: str, keep: int) -> Tensor:
        """Mark the units of a bucket that stay by the scores so far."""
        among = self.graph.buckets[name].among
        found = self.of(name)
        return keep_top(found, keep // (len(found) // (among or len(found))), among)

    def _cut(self, name: str) -> None:
        ids = self.graph.buckets[name].ids.to(self.keep.device)
        self.keep[ids] = self.decided[name].to(self.keep)

    def _buckets(self, units: Tensor) -> list[str]:
        held = set(units.tolist())
        return [n for n, b in self.graph.buckets.items() if int(b.ids[0]) in held]


class _Stop(torch.autograd.Function):
    """Passes a value on; on the way back, scores its channels and lets the kept ones through."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, axis: int, units: Tensor, book: Book) -> Tensor:
        ctx.axis, ctx.units, ctx.book = axis, units, book
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        along = gradient.movedim(ctx.axis, 0)
        passes = ctx.book.reach(ctx.units, along.flatten(1).sum(dim=1))
        lets = passes.view(-1, *[1] * (along.dim() - 1))
        return (along * lets).movedim(0, ctx.axis), None, None, None


def propagate(
    graph: Graph,
    model: nn.Module,
    example: Example,
    quota: Quota,
    final: Tensor | None = None,
) -> tuple[Decision, Scores]:
    """Decide every bucket in one sweep from the end: → (decision, scores) by bucket.

    The program is replaced by its linear bound: weights by their absolute values, biases
    dropped, activation functions by the identity, maxima by means, batch norms by |γ|/σ.
    The gradient of the weighted last features is then the importance, at strides, paddings,
    groups and shortcuts alike. A channel's importance is summed over positions and, in a
    residual stream, over everything that writes to it. As soon as a bucket is complete its
    least units are cut, and only the others send importance on.

    Where several layers write to one stream the sweep meets readers of the stream before it
    is complete; such buckets are decided by a first sweep that cuts nothing.

    Args:
        quota: bucket → how many units stay.
        final: importance of each last feature, (features,); None counts every output alike.

    Source: Yu et al. 2018, arXiv:1711.05908, section 3. Deviations: batch norms multiply by
    |γ|/σ, which is what the bound needs, rather than pass on unchanged; products of two
    activations pass importance to both; attention passes it to its values alone.
    """
    cut_nothing = _sweep(graph, model, example, {}, {}, final)
    several = {
        name: cut_nothing.best(name, keep)
        for name, keep in quota.items()
        if cut_nothing.places.get(name, 0) > 1
    }
    book = _sweep(graph, model, example, quota, several, final)
    decision = {n: book.decided[n] if n in book.decided else book.best(n, quota[n]) for n in quota}
    return decision, {name: book.of(name) for name in quota}


def last_features(graph: Graph) -> fx.Node | None:
    """Find what the classifier reads: the input of the one linear layer that ends the program.

    None where several layers end it, or the last is no linear layer.
    """
    program: Any = graph.module
    waiting, seen, ends = list(program.graph.output_node().all_input_nodes), set(), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if _is_product(node):
            ends.add(node)
        else:
            waiting += node.all_input_nodes
    if len(ends) != 1:
        return None
    (end,) = ends
    place = {"aten.linear": 0, "aten.addmm": 1}.get(operation(end))
    found = None if place is None else end.args[place]
    return found if isinstance(found, fx.Node) else None


def _sweep(
    graph: Graph,
    model: nn.Module,
    example: Example,
    quota: Quota,
    decided: Decision,
    final: Tensor | None,
) -> Book:
    device = next(model.parameters()).device
    book = Book.open(graph, quota, decided, device)
    features = last_features(graph) if final is not None else None
    ends: list[Tensor] = []

    def visit(node: fx.Node, result: Any) -> Any:
        if node.op == "placeholder" and isinstance(result, Tensor) and result.is_floating_point():
            return result.detach().requires_grad_()
        held = units_of(graph, node) if _is_place(graph, node) else None
        if held is not None:
            axis, units = held
            units = units.where(units >= 0, graph.units).to(device)
            book.expect(units)
            result = result if result.requires_grad else result.requires_grad_()
            result = _Stop.apply(result, axis, units, book)
        if node is features and final is not None:
            ends.append((result * final.to(result)).sum())
        if node.op == "output" and features is None:
            ends.extend(t.sum() for t in tensors(result) if t.requires_grad)
        return result

    program = Program(graph, model, rule=bound, visit=visit, change=_positive)
    with evaluating(model), torch.enable_grad():
        program.call(floats(example, torch.float64))
        torch.stack(ends).sum().backward()  # type: ignore[no-untyped-call]
    return book


def _positive(tensor: Tensor) -> Tensor:
    return tensor.double().abs() if tensor.is_floating_point() else tensor


def _is_product(node: fx.Node) -> bool:
    return node.op == "call_function" and operation(node) in _PRODUCTS


def _is_place(graph: Graph, node: fx.Node) -> bool:
    """Say whether a node makes units: a product, or the batch norm right behind it."""
    if node.op != "call_function":
        return False
    if operation(node) in _NORMS:
        source = node.args[0]
        return isinstance(source, fx.Node) and _is_product(source)
    followed = any(operation(user) in _NORMS for user in node.users if user.op == "call_function")
    return (_is_product(node) and not followed) or operation(node) == "aten.embedding"
