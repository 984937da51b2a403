"""Attention keeps its temperature when its heads become narrower.

softmax(q·k / sqrt(d)) recomputes d from what is left. Scaling the surviving query rows by
sqrt(new d / old d) gives the old function back, in evaluation and in training.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateurs.realise.attributes import owner
from secateurs.realise.calls import Values
from secateurs.realise.program import slice_of

_aten = torch.ops.aten
_SDPA = _aten.scaled_dot_product_attention.default
_ROWS: Mapping[Any, tuple[int, tuple[tuple[int, int], ...]]] = {
    _aten.linear.default: (-1, ((1, 0), (2, 0))),
    _aten.addmm.default: (-1, ((2, 1), (0, 0))),
    _aten.conv1d.default: (1, ((1, 0), (2, 0))),
    _aten.conv2d.default: (1, ((1, 0), (2, 0))),
    _aten.conv3d.default: (1, ((1, 0), (2, 0))),
    _aten.batch_norm.default: (1, ((1, 0), (2, 0))),
    _aten.layer_norm.default: (-1, ((2, 0), (3, 0))),
    _aten.rms_norm.default: (-1, ((2, 0),)),
    _aten.mul.Tensor: (-1, ((0, 0), (1, 0))),
}
"""Operation → its feature axis and the (argument, dim) of the weights that scale its rows."""


def has_default_scale(graph: fx.Graph) -> bool:
    """Tell whether a fused attention takes its scale from the width of its heads."""
    return any(n.target is _SDPA and n.kwargs.get("scale") is None for n in graph.nodes)


class Fold:
    """Folds temperatures into the query rows of a small program's weights, in place.

    Args:
        before: the traced program.
        after: the program with smaller parameters, whose constants follow.
        values: every value of `before` and of `after`, by node name.
        tensors: the small weights by `get_attr` target.
    """

    def __init__(
        self,
        before: fx.Graph,
        after: fx.Graph,
        values: tuple[Values, Values],
        tensors: Callable[[str], Tensor],
    ) -> None:
        """Hold on to both programs."""
        self.before, self.after, self.tensors = before, after, tensors
        self.old, self.new = values
        self.nodes = {node.name: node for node in after.nodes}
        self.scaled: dict[tuple[str, tuple[int, ...]], tuple[int, float]] = {}
        self.changed: list[tuple[fx.Node, Any]] = []

    def defaults(self) -> bool:
        """Fold every fused attention that takes its scale from the width; True if any was."""
        done = False
        for node in self.before.nodes:
            if node.target is not _SDPA or node.kwargs.get("scale") is not None:
                continue
            query = node.args[0]
            assert isinstance(query, fx.Node)
            old, new = self.old[query.name].shape[-1], self.new[query.name].shape[-1]
            small = self.nodes[node.name]
            if old != new and self._scale(small.args[0], small.args[1:3], math.sqrt(new / old)):
                self.changed.append((small, small.kwargs))
                small.kwargs = {k: v for k, v in small.kwargs.items() if k != "scale"}
                done = True
        return done

    def recomputed(self, path: str) -> bool:
        """Fold the products with 1 / sqrt(d) that one module writes itself; True if any was."""
        done = False
        for node in self.before.nodes:
            if owner(node) != path or node.target not in (_aten.mul.Tensor, _aten.div.Tensor):
                continue
            x, number = node.args[:2]
            if not isinstance(x, fx.Node) or not isinstance(number, float):
                continue
            width = number**2 if node.target is _aten.div.Tensor else number**-2
            ratio = self._ratio(x, width)
            small = self.nodes[node.name]
            if ratio is None or small.args[1] != number:
                continue
            query = small.args[0]
            if isinstance(query, fx.Node) and query.target in (
                _aten.matmul.default,
                _aten.bmm.default,
            ):
                query = query.args[0]
            if self._scale(query, (), math.sqrt(ratio)):
                divide = node.target is _aten.div.Tensor
                factor = math.sqrt(ratio) if divide else 1 / math.sqrt(ratio)
                small.args = (small.args[0], number * factor, *small.args[2:])
                done = True
        return done

    def _ratio(self, x: fx.Node, width: float) -> float | None:
        """New over old of the head width that a scale of 1 / sqrt(width) was made from."""
        if x.target in (_aten.matmul.default, _aten.bmm.default):
            first = x.args[0]
            assert isinstance(first, fx.Node)
            x = first
        if abs(width - round(width)) > 1e-4 * width:
            return None
        old, new = self.old[x.name], self.new[x.name]
        pairs = {(a, b) for a, b in zip(old.shape, new.shape, strict=True) if a != b}
        found = [b / a for a, b in pairs if a == round(width)]
        return found[0] if found else None

    def _scale(self, query: Any, others: tuple[Any, ...], factor: float) -> bool:
        """Scale the weight rows that make `query` and nothing in `others`."""
        if not isinstance(query, fx.Node):
            return False
        sources = {node: _ROWS[node.target][0] for node in self._sources(query)}
        reached = self._reached(sources, query, factor)
        if not reached or any(self._touches(reached, sources, other) for other in others):
            return False
        found: list[tuple[str, int, tuple[int, ...]]] = []
        for source, rows in reached.items():
            for place, dim in _ROWS[source.target][1]:
                weight = source.args[place] if place < len(source.args) else None
                if not isinstance(weight, fx.Node):
                    continue
                if source.target is _aten.mul.Tensor and weight.op != "get_attr":
                    continue
                held = self._held(weight, dim, rows)
                if held is None:
                    return False
                found += held
        for name, dim, rows_ in found:
            if (name, rows_) in self.scaled:
                continue
            self.scaled[(name, rows_)] = (dim, factor)
            self._multiply(name, dim, rows_, factor)
        return bool(found)

    def undo_(self) -> None:
        """Take back what `defaults` did."""
        for (name, rows), (dim, factor) in self.scaled.items():
            self._multiply(name, dim, rows, 1 / factor)
        for node, kwargs in self.changed:
            node.kwargs = kwargs
        self.scaled, self.changed = {}, []

    def _multiply(self, name: str, dim: int, rows: tuple[int, ...], factor: float) -> None:
        with torch.no_grad():
            view = self.tensors(name).detach()
            index = torch.tensor(rows, device=view.device)
            view.index_copy_(dim, index, view.index_select(dim, index) * factor)

    def _held(
        self, weight: fx.Node, dim: int, rows: Tensor
    ) -> list[tuple[str, int, tuple[int, ...]]] | None:
        """Say which rows of which parameters are these rows of a weight; None if unclear."""
        if len(rows) == 0:
            return []
        if weight.op == "get_attr":
            name = str(weight.target)
            if isinstance(self.tensors(name), nn.Parameter):
                return [(name, dim, tuple(rows.tolist()))]
            # A buffer stays as it is, which is right where it is zero.
            return None if bool(self.tensors(name).index_select(dim, rows).any()) else []
        if weight.target is _aten.cat.default and (weight.args[1:] or (0,))[0] == dim:
            found, start = [], 0
            for piece in weight.args[0]:  # type: ignore[union-attr]
                assert isinstance(piece, fx.Node)
                size = self.new[piece.name].shape[dim]
                inside = rows[(rows >= start) & (rows < start + size)] - start
                held = self._held(piece, dim, inside)
                if held is None:
                    return None
                found += held
                start += size
            return found
        source = weight.args[0] if weight.args else None
        if weight.target is operator.getitem and isinstance(source, fx.Node):
            pieces, whole = self.new[source.name], source.args[0]
            if not isinstance(whole, fx.Node) or "split" not in str(source.target):
                return None
            start = sum(piece.shape[dim] for piece in pieces[: weight.args[1]])
            full = self.new[whole.name].shape[dim] == sum(piece.shape[dim] for piece in pieces)
            return self._held(whole, dim, rows + start) if full else None
        return None

    def _sources(self, sink: fx.Node) -> list[fx.Node]:
        """Walk back to the nearest operations whose rows are weights."""
        stack, seen, found = [sink], set(), []
        while stack:
            node = stack.pop()
            if node in seen or node.op != "call_function":
                continue
            seen.add(node)
            if self._has_weight(node):
                found.append(node)
            else:
                stack.extend(node.all_input_nodes)
        return found

    def _reached(
        self, sources: Mapping[fx.Node, int], sink: fx.Node, factor: float
    ) -> dict[fx.Node, Tensor] | None:
        """Rows of each source that reach `sink`; None unless the sink scales with them."""
        values = {s.name: self.new[s.name].clone().requires_grad_() for s in sources}
        out, grads = self._gradients(values, sink)
        if out is None:
            return None
        rows = {s: _used(grads[s.name], axis) for s, axis in sources.items()}
        with torch.no_grad():
            scaled = {}
            for source, axis in sources.items():
                value = values[source.name].detach().clone()
                value.index_copy_(
                    axis, rows[source], value.index_select(axis, rows[source]) * factor
                )
                scaled[source.name] = value
            again = self._replay(scaled, sink)
        return rows if torch.allclose(again, out * factor, rtol=1e-6, atol=1e-9) else None

    def _touches(
        self, rows: Mapping[fx.Node, Tensor], sources: Mapping[fx.Node, int], sink: Any
    ) -> bool:
        """Tell whether the rows reach another value, which must not change."""
        shared = [s for s in self._sources(sink) if s in rows] if isinstance(sink, fx.Node) else []
        if not shared:
            return False
        values = {s.name: self.new[s.name].clone().requires_grad_() for s in shared}
        _, grads = self._gradients(values, sink)
        used = {s: _used(grads[s.name], sources[s]) for s in shared}
        return any(bool(torch.isin(used[s], rows[s]).any()) for s in shared)

    def _gradients(
        self, values: dict[str, Tensor], sink: fx.Node
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        with torch.enable_grad():
            out = self._replay(dict(values), sink)
            if not values or not isinstance(out, Tensor) or not out.requires_grad:
                return None, {}
            # Weights of many sizes, so that no two paths cancel.
            weight = torch.linspace(1, 2, out.numel(), dtype=out.dtype, device=out.device)
            grads = torch.autograd.grad(
                (out * weight.view(out.shape)).sum(), [*values.values()], materialize_grads=True
            )
        return out.detach(), dict(zip(values, grads, strict=True))

    def _replay(self, given: dict[str, Tensor], sink: fx.Node) -> Any:
        """Recompute one value from others; what they do not feed is taken as recorded."""
        wanted = slice_of(self.after, given, [sink.name])
        known: dict[str, Any] = dict(given)
        for node in self.after.nodes:
            if node not in wanted or node.name in known:
                continue
            if not any(n.name in known for n in node.all_input_nodes):
                continue
            args, kwargs = fx.node.map_arg(
                (node.args, node.kwargs), lambda n: known.get(n.name, self.new.get(n.name))
            )
            known[node.name] = node.target(*args, **kwargs)
        return known.get(sink.name)

    def _has_weight(self, node: fx.Node) -> bool:
        if node.target not in _ROWS:
            return False
        places = [place for place, _ in _ROWS[node.target][1]]
        given = [node.args[p] for p in places if p < len(node.args)]
        # A buffer, such as a table of rotations, is shared by queries and keys.
        return any(self._is_weight(a) for a in given if isinstance(a, fx.Node))

    def _is_weight(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            return isinstance(self.tensors(str(node.target)), nn.Parameter)
        if node.target is operator.getitem:  # a projection that is split before it is used
            inner = node.args[0]
            return isinstance(inner, fx.Node) and any(
                n.op == "get_attr" and self._is_weight(n) for n in inner.all_input_nodes
            )
        return False


def _used(grad: Tensor, axis: int) -> Tensor:
    others = [d for d in range(grad.dim()) if d != axis % grad.dim()]
    return (grad.abs().sum(dim=others) > 0).nonzero().squeeze(1)
