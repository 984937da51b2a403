"""Build the small model in float64, make its attributes follow, and mend what they cannot say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from secateurs.core.example import Example, map_tensors
from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.graph.rewrite import renumbered
from secateurs.realise.attention import follow_attention
from secateurs.realise.attributes import Edit, constants, follow_constants, follow_leaves, shapes
from secateurs.realise.calls import Call, Values, difference, record_calls, record_values
from secateurs.realise.precise import attribute, doubled, restore_constants_
from secateurs.realise.program import is_program
from secateurs.realise.repair import Repair
from secateurs.realise.shrink import Shrunk, all_tensors, kept_axes, shrink
from secateurs.realise.temperature import Fold, has_default_scale


@dataclass
class Original:
    """The user's model and, once something has to be mended, its masked copy in float64."""

    model: nn.Module
    """Never changed."""
    graph: Graph
    mask: Mask
    example: Example
    """In float64."""
    tolerance: float

    def copy(self, mask: Mask) -> nn.Module:
        """Copy the model in float64 and evaluation mode, zero where the mask is False."""
        return shrink(self.model, {}, mask, dtype=torch.float64)[0].eval()

    @cached_property
    def masked(self) -> nn.Module:
        """What the smaller model must compute; twice as large as the model, so made late."""
        return self.copy(self.mask)

    @cached_property
    def precise(self) -> Graph:
        """The graph, its program with the masked weights in float64."""
        own, names = all_tensors(self.masked), self.graph.names
        program = doubled(self.graph.module, lambda name: own.get(names.get(name, name)))
        return replace(self.graph, module=program)

    @cached_property
    def values(self) -> Values:
        """Every value of the traced program."""
        return record_values(self.precise.module, self.example)

    @cached_property
    def calls(self) -> dict[str, list[Call]]:
        """What every module is called with, in the program's values."""
        return record_calls(self.masked, self.example, self.values)


@dataclass
class Small:
    """A small model in float64 and evaluation mode, and the program it must agree with."""

    model: nn.Module
    shrunk: Shrunk
    original: Original
    program: fx.GraphModule
    edits: list[Edit]
    fold: Fold | None = None
    parts: list[str] = field(default_factory=list)

    @cached_property
    def values(self) -> Values:
        """Every value of the smaller program."""
        return record_values(self.program, self.original.example)

    def repair(self) -> bool:
        """Mend, in place, the modules that compute something else; False when that failed."""
        try:
            values, calls = self.values, self.original.calls
        except Exception:  # a program of one concrete run need not run on smaller parameters
            return False
        work = Repair(
            model=self.model,
            after=self.program,
            values=values,
            calls=calls,
            constants=constants(self.original.graph.module.graph, self.program.graph),
            shapes=shapes(self.original.values, values, self.original.graph.module.graph),
            fold=self.fold or self._new_fold(),
            tolerance=self.original.tolerance,
            refresh=self._refresh,
            edits=self.edits,
        )
        right = work.fix()
        self.model = work.model
        self.parts = work.parts
        return right

    def keep_temperature(self) -> None:
        """Fold fused attention's scale into the query rows, where a head became narrower."""
        if not has_default_scale(self.original.graph.module.graph):
            return
        try:
            self.fold = self._new_fold()
        except Exception:  # as in `repair`
            return
        wanted = self.values
        if self.fold.defaults() and difference(self._refresh()["output"], wanted["output"]) > (
            self.original.tolerance
        ):
            self.fold.undo_()
            self._refresh()

    def _new_fold(self) -> Fold:
        return Fold(
            self.original.graph.module.graph,
            self.program.graph,
            (self.original.values, self.values),
            lambda target: attribute(self.program, target),
        )

    def _refresh(self) -> Values:
        self.program.recompile()
        self.__dict__.pop("values", None)
        if self.fold is not None:
            self.fold.new = self.values
        return self.values

    def programs(self) -> list[fx.GraphModule]:
        """List the traced parts the model holds."""
        return [m for m in self.model.modules() if isinstance(m, fx.GraphModule)]

    def finish(self) -> nn.Module:
        """Give dtypes and modes back what they were and return the model."""
        for name, tensor in self.shrunk.new.items():
            old = self.shrunk.old[name]
            if tensor.dtype != old.dtype:
                tensor.data = tensor.data.to(old.dtype)
        modes = {path: m.training for path, m in self.original.model.named_modules()}
        for path, module in self.model.named_modules():
            module.training = modes.get(path, modes[""])
            if is_program(module):
                assert isinstance(module, fx.GraphModule)
                restore_constants_(module.graph)
                module.recompile()
        floats = [t.dtype for t in self.shrunk.old.values() if t.is_floating_point()]
        if floats:
            _cast_rest_(self.model, {id(t) for t in self.shrunk.new.values()}, floats[0])
        return self.model


def build(original: Original, removed: Tensor, after: fx.GraphModule) -> Small:
    """Shrink a copy of the original and let its attributes follow; it may not run yet.

    `removed` is bool (units,); `after` is the traced program without those units.
    """
    keeps = kept_axes(original.graph, removed)
    model, shrunk = shrink(original.model, keeps, original.mask, dtype=torch.float64)
    shrunk = _renumber_(shrunk, renumbered(original.graph, removed))
    model.eval()
    own = all_tensors(model)
    names = original.graph.names
    program = doubled(after, lambda name: own.get(names.get(name, name)))
    old = {name: tuple(t.shape) for name, t in all_tensors(original.model).items()}
    sizes = constants(original.graph.module.graph, program.graph)
    edits = follow_leaves(model, old, keeps)
    for path, module in model.named_modules():
        packed = f"{path}.in_proj_weight" if path else "in_proj_weight"
        edits += follow_attention(path, module, keeps.get(packed, {}).get(0))
    edits += follow_constants(model, sizes, old)
    small = Small(model, shrunk, original, program, edits)
    small.keep_temperature()
    return small


def _renumber_(shrunk: Shrunk, numbers: Mapping[str, tuple[Tensor, Tensor]]) -> Shrunk:
    """Let buffers of positions, such as a permutation of channels, hold the new positions."""
    keeps = dict(shrunk.keeps)
    for name, (left, held) in numbers.items():
        if name in shrunk.new:
            tensor = shrunk.new[name]
            tensor.data = held.to(tensor.device, tensor.dtype)
            keeps[name] = {0: left}
    return replace(shrunk, keeps=keeps)


def _cast_rest_(model: nn.Module, done: set[int], dtype: torch.dtype) -> None:
    """Give what a run in float64 left behind the model's dtype.

    Constants of traced parts, and tables that a forward computes once and keeps in an
    attribute, a list or a mapping.
    """

    def cast(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64 and id(tensor) not in done:
            tensor.data = tensor.data.to(dtype)
        return tensor

    for tensor in all_tensors(model).values():
        cast(tensor)
    for module in model.modules():
        for name, held in vars(module).items():
            if name not in _INTERNAL and isinstance(held, (dict, list, tuple)):
                map_tensors(cast, held)


_INTERNAL = frozenset(vars(nn.Module()))
