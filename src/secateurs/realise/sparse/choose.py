"""Which kernel computes each product: all that could be best are timed on its own layout."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.measure.latency import calm
from secateurs.realise.sparse import native
from secateurs.realise.sparse.assemble import Segment, Work, assemble
from secateurs.realise.sparse.choice import DENSE, Choice, Chosen
from secateurs.realise.sparse.engine import Arena
from secateurs.realise.sparse.ops import Op, Product
from secateurs.realise.sparse.steps import Writer, entries, fits_small

Shapes = Mapping[str, tuple[int, ...]]
_WIDTHS = {1: (12, 8, 6, 4), 2: (10, 5, 3), 4: (6, 3, 2)}
_WORTH = {1: 1.0, 2: 1.8, 4: 2.6}
"""How many times the weights' own multiplications sharing offsets may cost and still pay."""
_FIRST_CACHE = 32 << 10
_ROUNDS = 5


def choose(
    ops: Mapping[str, Op],
    shapes: Shapes,
    *,
    instructions: str,
    threads: int,
    bits: tuple[int, ...] = (32,),
    dense: bool = True,
    known: dict[str, Chosen],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Chosen]:
    """Time every product of a network that is not in `known` yet: value → what was chosen.

    `bits` says what a weight may be stored in: 32, and 8 where that is faster.
    A layer stays dense only where torch's kernel is faster even though its result has to be
    laid out for the next sparse layer; with `dense` false, none does.
    """
    assembly = assemble(ops, shapes, {})
    arena = Arena(assembly.size)
    generator = np.random.default_rng(0)
    arena.array[:] = generator.standard_normal(len(arena.array), np.float32)
    bench = _Bench(Writer(assembly, instructions, threads), arena, shapes, bits, dense)
    works = [
        (w, w.op) for p in assembly.parts if isinstance(p, Segment) for w in p.works
        if isinstance(w.op, Product)
    ]  # fmt: skip
    found: dict[str, Chosen] = {}
    for done, (raw, op) in enumerate(works):
        work = replace(raw, op=op.folded())
        if progress is not None:
            progress(done, len(works))
        key = _key(work, bench)
        if not dense and not (key in known and known[key].sparse):
            key += " | sparse"
        if key not in known:
            known[key] = bench.measure(work)
        found[work.makes] = known[key]
    return found


class _Bench:
    """Times products in an arena of random numbers."""

    def __init__(
        self, writer: Writer, arena: Arena, shapes: Shapes, bits: tuple[int, ...], dense: bool
    ) -> None:
        self.writer, self.arena, self.shapes = writer, arena, shapes
        self.bits, self.dense = bits, dense

    def measure(self, work: Work) -> Chosen:
        op = work.op
        assert isinstance(op, Product)
        bits = [b for b in self.bits if b == 32 or fits_small(op)]
        runs = {
            choice: self._sparse(work, choice)
            for choice in (replace(c, bits=b) for c in self._candidates(work) for b in bits)
        }
        calm(self.writer.threads)
        best, dense = _fastest(runs), dict(self._dense(op))
        sparse_s, dense_s = _in_turns([runs[best], dense[_fastest(dense)]])
        wins = self.dense and dense_s + self._layout_s(work) <= sparse_s
        return Chosen(
            DENSE if wins else best,
            density=float((op.weight != 0).float().mean()),
            stored=runs[best].entries * best.together / op.weight.numel(),
            sparse_s=sparse_s,
            dense_s=dense_s,
        )

    def _candidates(self, work: Work) -> Iterator[Choice]:
        """Yield what may be fastest: filters together, positions at a time, channels at a time."""
        op, layout = work.op, self.writer.assembly.layouts
        assert isinstance(op, Product)
        made, lanes = layout[work.makes], native.lanes(self.writer.instructions)
        share, channels = len(op.weight) // op.groups, op.weight.shape[1]
        used = op.weight.flatten(1) != 0
        total = max(1, int(used.sum()))
        for together in native.TOGETHER:
            if share % together and op.groups > 1:
                continue
            whole = used[: len(used) // together * together].reshape(-1, together, used.shape[1])
            if int(whole.any(dim=1).sum()) * together > _WORTH[together] * total:
                continue
            most = native.widest(self.writer.instructions, together)
            widths = [w for w in _WIDTHS[together] if w <= most]
            needed = -(-made.positions // lanes)
            for width in dict.fromkeys(min(w, needed) for w in widths):
                yield Choice(together, width)
                for block in (16, 32, 64, 128, 256):
                    size = block * width * lanes * 4
                    if (
                        block < channels
                        and _FIRST_CACHE // 4 <= size <= _FIRST_CACHE
                        and made.plane > 1
                    ):
                        yield Choice(together, width, block)

    def _sparse(self, work: Work, choice: Choice) -> "_Run":
        layouts = self.writer.assembly.layouts
        op = work.op
        assert isinstance(op, Product)
        encoded = entries(op, layouts[work.reads[0]], layouts[work.makes], choice)
        held: list[Any] = []
        steps = (native.Step * 1)()
        self.writer.product(steps[0], work, encoded, choice, held)
        return _Run(steps, held, encoded.entries, self.arena, self.writer.threads)

    def _dense(self, op: Product) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield torch's kernel in each memory layout."""
        x = torch.randn(self.shapes[op.source], generator=torch.Generator().manual_seed(0))
        if op.linear:
            yield "linear", lambda: F.linear(x, op.weight[:, :, 0, 0], op.bias)
            return
        image = x if x.dim() == 4 else x.reshape(*x.shape[:2], 1, -1)
        settings = op.stride, op.padding, op.dilation, op.groups
        for layout in (torch.contiguous_format, torch.channels_last):
            held = image.contiguous(memory_format=layout)
            weight = op.weight.contiguous(memory_format=layout)
            yield str(layout), _convolution(held, weight, op.bias, settings)

    def _layout_s(self, work: Work) -> float:
        """Measure what it takes to lay out a dense result for a sparse layer."""
        made = self.writer.assembly.layouts[work.makes]
        tokens = isinstance(work.op, Product) and work.op.linear
        view = self.arena.view(
            made, self.writer.assembly.at[work.makes], self.shapes[work.makes], tokens
        )
        return _in_turns([lambda: view.copy_(view.contiguous())])[0]


class _Run:
    """One product's step, run on its own."""

    def __init__(
        self, steps: Any, held: list[Any], entries: int, arena: Arena, threads: int
    ) -> None:
        self.steps, self.held, self.entries = steps, held, entries
        self.arena, self.threads = arena, threads

    def __call__(self) -> None:
        native.run(self.steps, self.arena.array, [], self.threads)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor, settings: tuple[Any, ...]
) -> Callable[[], Any]:
    return lambda: F.conv2d(x, weight, bias, *settings)


def _fastest(runs: Mapping[Any, Callable[[], Any]]) -> Any:
    """Return which of some functions is fastest; after one run those far behind are left out."""
    once = dict(zip(runs, _in_turns(list(runs.values()), rounds=1), strict=True))
    near = [name for name, seconds in once.items() if seconds < 1.3 * min(once.values())]
    taken = _in_turns([runs[name] for name in near])
    return near[taken.index(min(taken))]


def _in_turns(runs: Sequence[Callable[[], Any]], rounds: int = _ROUNDS) -> list[float]:
    """Return the median seconds of each function, run in turns after one untimed turn."""
    with torch.no_grad():
        for run in runs:
            run()
        turns = [[_seconds(run) for run in runs] for _ in range(rounds)]
    return [median(taken) for taken in zip(*turns, strict=True)]


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _key(work: Work, bench: _Bench) -> str:
    """Say what the choice depends on: the layer's geometry and how many weights it keeps."""
    op, writer = work.op, bench.writer
    assert isinstance(op, Product)
    used = op.weight.flatten(1) != 0
    rows = used[: len(used) // 4 * 4].reshape(-1, 4, used.shape[1]).any(dim=1)
    made = writer.assembly.layouts[work.makes]
    facts = (
        *(writer.instructions, writer.threads, tuple(op.weight.shape), op.groups),
        *(op.stride, op.padding, op.dilation, bench.shapes[op.source], made.pitch),
        *(round(float(m.float().mean()), 2) for m in (used, rows)),
        *(op.residual is not None, bench.bits),
    )
    return " | ".join(map(str, facts))
