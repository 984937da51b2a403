"""Runs an assembled network: the kernels' steps, and torch's own operations between them."""

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx

from secateurs.graph.walk import attribute
from secateurs.realise.sparse import native
from secateurs.realise.sparse.assemble import Assembly, Segment, assemble
from secateurs.realise.sparse.choice import Choice
from secateurs.realise.sparse.encode import Encoded
from secateurs.realise.sparse.layout import Layout
from secateurs.realise.sparse.ops import Call, Op, Product
from secateurs.realise.sparse.steps import Steps, Writer, entries

_HUGE = 2 << 20


class Arena:
    """Memory for the activations of one call, in large pages where the system has them."""

    def __init__(self, size: int) -> None:
        """Take `size` floats, zero."""
        self.memory = mmap.mmap(-1, max(size * 4, 4) + _HUGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel built without them
                self.memory.madvise(mmap.MADV_HUGEPAGE)
        every = np.frombuffer(self.memory, np.float32)
        first = -every.ctypes.data % _HUGE // 4
        self.array: NDArray[np.float32] = every[first : first + size]
        self.tensor = torch.from_numpy(self.array)

    def view(self, layout: Layout, at: int, shape: tuple[int, ...], tokens: bool) -> Tensor:
        """Show a value as torch would, without copying it."""
        if tokens:
            strides: tuple[int, ...] = (*_contiguous(shape[:-1]), layout.plane)
        else:
            strides = (layout.image, layout.plane, layout.pitch, 1)
            strides = strides if len(shape) == 4 else (*strides[:2], 1)[: len(shape)]
        return self.tensor.as_strided(shape, strides, at + layout.head)


class Engine:
    """A network ready to run; safe under several threads, each of which takes an arena."""

    def __init__(
        self,
        module: fx.GraphModule,
        ops: Mapping[str, Op],
        shapes: Mapping[str, tuple[int, ...]],
        alias: Mapping[str, str],
        choices: Mapping[str, Choice],
        *,
        instructions: str,
        threads: int,
    ) -> None:
        """Encode the weights and write the steps."""
        self.module, self.ops, self.shapes, self.alias = module, dict(ops), shapes, alias
        self.choices = {n: choices.get(n, Choice()) for n in ops}
        self.threads = threads
        self.assembly: Assembly = assemble(ops, shapes, self.choices)
        self.encoded: dict[str, Encoded] = {}
        for part in self.assembly.parts:
            for work in part.works if isinstance(part, Segment) else ():
                if isinstance(work.op, Product):
                    source, made = (self.assembly.layouts[n] for n in (work.reads[0], work.makes))
                    op, choice = work.op, self.choices[work.op.name]
                    self.encoded[op.name] = entries(op.folded(), source, made, choice)
                    self.ops[op.name] = replace(op, weight=torch.empty(0), factor=None)
        writer = Writer(self.assembly, instructions, threads)
        self.parts: list[Steps | Op] = [
            writer.segment(p, self.encoded, self.choices)
            if isinstance(p, Segment)
            else p.folded()
            if isinstance(p, Product)
            else p
            for p in self.assembly.parts
        ]
        self.assembly.parts.clear()  # their weights are encoded by now
        self.constants = constants(module)
        self.arenas: list[Arena] = []

    def release_(self) -> None:
        """Give up what only running takes; the program and its tensors stay."""
        self.parts.clear()
        self.encoded.clear()
        self.arenas.clear()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the network; the result is the caller's own."""
        try:
            arena = self.arenas.pop()
        except IndexError:
            arena = Arena(self.assembly.size)
        try:
            return self._run(arena, args, kwargs)
        finally:
            self.arenas.append(arena)

    def _run(self, arena: Arena, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made: dict[str, Any] = {"args": args, "kwargs": kwargs}

        def value(node: fx.Node) -> Any:
            return self._value(node, made, arena)

        for part in self.parts:
            if isinstance(part, Steps):
                given = [self._tensor(name, made) for name in part.outside]
                native.run(part.steps, arena.array, [t.data_ptr() for t in given], self.threads)
            elif isinstance(part, Call):
                node = part.node
                arguments, named = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
                made[part.name] = node.target(*arguments, **named)  # type: ignore[operator]
            elif isinstance(part, Product):
                made[part.name] = _dense(part, lambda n: self._named(n, made, arena))
        result = fx.map_arg(self.module.graph.output_node().args[0], value)
        return _owned(result, arena)

    def _value(self, node: fx.Node, made: dict[str, Any], arena: Arena) -> Any:
        if node.op == "get_attr":
            return self.constants[str(node.target)]
        if node.op == "placeholder":
            return made[str(node.target).lstrip("*")]
        return self._named(node.name, made, arena)

    def _named(self, name: str, made: dict[str, Any], arena: Arena) -> Any:
        while name in self.alias:
            name = self.alias[name]
        if name in made:
            return made[name]
        layout, op = self.assembly.homes[name], self.ops[name]
        tokens = isinstance(op, Product) and op.linear
        return arena.view(layout, self.assembly.at[name], self.shapes[name], tokens)

    def _tensor(self, name: str, made: dict[str, Any]) -> Tensor:
        """Return a value of torch as the kernels read it, and keep it while they do."""
        tensor: Tensor = made[name]
        if not tensor.is_contiguous():
            made[name] = tensor = tensor.contiguous()
        return tensor


def _dense(op: Product, value: Any) -> Tensor:
    """Compute a product with torch's own kernel."""
    x = value(op.source)
    if op.linear:
        y = F.linear(x, op.weight[:, :, 0, 0], op.bias)
    elif x.dim() == 3:
        flat = op.stride[1], op.padding[1], op.dilation[1], op.groups
        y = F.conv1d(x, op.weight[:, :, 0], op.bias, *flat)
    else:
        y = F.conv2d(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    if op.residual is not None:
        y = y + value(op.residual)
    return y.clamp_(op.low, op.high) if op.clamped else y


def constants(module: fx.GraphModule) -> dict[str, Any]:
    """Return what a program reads besides its inputs: target → tensor or plain value."""
    targets = [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]
    return {target: attribute(module, target) for target in targets}


def _owned(result: Any, arena: Arena) -> Any:
    """Copy what would be overwritten by the next call."""
    start = arena.tensor.data_ptr()
    end = start + arena.tensor.numel() * 4

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and start <= leaf.data_ptr() < end:
            return leaf.clone(memory_format=torch.contiguous_format)
        return leaf

    return torch.utils._pytree.tree_map(own, result)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
