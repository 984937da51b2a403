"""Modules that do not compute what the traced program computes are found and mended, one by one.

Every module is called with what the program says it gets and compared with what the program
says it returns, so a guess is judged where it was made. What no attribute can express is
replaced by its own part of the traced program.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _assign_attr
from torch.utils import _pytree as pytree

from secateurs.realise.attributes import Edit, Sizes, guesses, set_fields, undo_fields
from secateurs.realise.calls import Call, Values, difference, fill
from secateurs.realise.program import Ref, is_program, program
from secateurs.realise.temperature import Fold

State = Literal["right", "other", "stops"]


@dataclass
class Repair:
    """A small model under repair, in float64 and evaluation mode; `fix` changes it in place."""

    model: nn.Module
    after: fx.GraphModule
    values: Values
    """What the program with smaller parameters computes, by node."""
    calls: dict[str, list[Call]]
    constants: Sizes
    shapes: Sizes
    fold: Fold
    tolerance: float
    refresh: Callable[[], Values]
    """Recompute `values` after the program changed."""
    edits: list[Edit] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def state(self, path: str) -> State | None:
        """Tell whether a module computes what it should; None when it is never called."""
        found: list[State] = [self._state(call) for call in self.calls.get(path, [])]
        if not found:
            return None
        return "stops" if "stops" in found else "other" if "other" in found else "right"

    def _state(self, call: Call) -> State:
        wanted = _leaves(call.result)
        try:
            args, kwargs = fill(call.args, self.values)
            with torch.no_grad():
                result = self.model.get_submodule(call.path)(*args, **kwargs)
        except Exception:  # whatever a user's forward raises when sizes do not fit
            return "stops"
        found = pytree.tree_leaves(result)
        if len(found) != len(wanted):
            return "stops"
        pairs = [
            (x, self.values[w.name])
            for x, w in zip(found, wanted, strict=True)
            if isinstance(w, Ref) and w.name in self.values
        ]
        worst = max((difference(x, y) for x, y in pairs), default=0.0)
        return "right" if worst <= self.tolerance else "stops" if worst == float("inf") else "other"

    def fix(self, path: str = "") -> bool:
        """Make one module right, and before it the modules inside; False when that failed."""
        state = self.state(path)
        if state == "right":
            return True
        module = self.model.get_submodule(path)
        if not is_program(module):
            inside = [self.fix(_join(path, name)) for name, _ in module.named_children()]
            state = self.state(path) if inside else state
            if state is None:
                return all(inside)
            if state == "right" or self._by_attributes(path, module, state):
                return True
        elif state is None:
            return True
        return self._by_part(path, module)

    def _by_attributes(self, path: str, module: nn.Module, state: State) -> bool:
        if state == "other" and self._by_temperature(path):
            return True
        pairs = Counter(self.constants.get(path, {}))
        pairs.update(self.shapes.get(path, {}))
        if self._without_some(path, module):
            return True
        folded = False
        for guess in guesses(module, pairs):
            edits = set_fields(path, module, guess)
            state_now = self.state(path)
            if state_now == "other" and not folded:
                folded = True
                state_now = "right" if self._by_temperature(path) else state_now
            if state_now == "right":
                self.edits.extend(edits)
                return True
            undo_fields(module, edits)
        return False

    def _without_some(self, path: str, module: nn.Module) -> bool:
        """Take back attributes that only happened to hold a size that changed elsewhere."""
        for edit in [e for e in self.edits if e[0] == path and e[1] != "__class__"]:
            undo_fields(module, [edit])
            if self.state(path) == "right":
                self.edits.remove(edit)
                return True
            set_fields(path, module, {edit[1]: edit[3]})
        return False

    def _by_temperature(self, path: str) -> bool:
        if not self.fold.recomputed(path):
            return False
        self.values = self.refresh()
        return self.state(path) == "right"

    def _by_part(self, path: str, module: nn.Module) -> bool:
        """Replace a module by its part of the program."""
        try:
            part = self._part(path, module)
        except (KeyError, ValueError):
            return False
        replace(self.model, path, part)
        if path == "":
            self.model = part
        if self.state(path) == "right":
            inner = path + "." if path else ""
            self.parts = [p for p in self.parts if not p.startswith(inner)] + [path]
            return True
        replace(self.model, path, module)
        if path == "":
            self.model = module
        return False

    def _part(self, path: str, module: nn.Module) -> fx.GraphModule:
        call = self.calls[path][0]
        given = [leaf for leaf in _leaves(call.args) if isinstance(leaf, Ref | Tensor)]
        inputs: dict[str, int] = {}
        for position, leaf in enumerate(given):
            if isinstance(leaf, Ref):
                inputs.setdefault(leaf.name, position)
        results, spec = pytree.tree_flatten(call.result, is_leaf=lambda x: isinstance(x, Ref))
        if any(isinstance(leaf, Tensor) for leaf in results):
            raise ValueError("a result is no value of the program")
        own = dict(_own(module))
        prefix = path + "." if path else ""
        tensors: dict[str, tuple[str, Any]] = {}
        for node in self.after.graph.nodes:
            if node.op == "get_attr":
                target = str(node.target)
                value = _attribute(self.after, target)
                if target.startswith(prefix):
                    tensors[target] = (target[len(prefix) :], value)
                elif not isinstance(value, nn.Parameter):
                    tensors[target] = ("constant_" + target.replace(".", "_"), value)
                else:
                    names = [name for name, held in own.items() if held is value]
                    if names:
                        tensors[target] = (names[0], value)
        part = program(self.after.graph, tensors, inputs, results, pytree.treespec_dumps(spec))
        have = dict(_own(part))
        for name, tensor in own.items():
            if name not in have:
                _assign_attr(tensor, part, name)
        part.train(module.training)
        return part


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module at a path, and wherever else the same module is used; in place."""
    if not path:
        return
    old = model.get_submodule(path)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = module


def _leaves(nested: Any) -> list[Any]:
    return pytree.tree_leaves(nested, is_leaf=lambda x: isinstance(x, Ref))


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*module.named_parameters(remove_duplicate=False)]
    return [*named, *module.named_buffers(remove_duplicate=False)]


def _attribute(module: nn.Module, target: str) -> Any:
    value: Any = module
    for name in target.split("."):
        value = getattr(value, name)
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
