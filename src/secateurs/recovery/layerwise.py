"""Layers of one model fitted, front to back, to what those of another compute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.core.example import Batch, call, split
from secateurs.core.finite import check_finite
from secateurs.core.layers import layers as found_layers
from secateurs.measure.forward import device_of, evaluation, to_device
from secateurs.recovery.follow import Following, Met, Stop
from secateurs.recovery.normal import Normal
from secateurs.recovery.rows import Linear, kept_outputs, linears, weight_name

Kept = Mapping[str, Mapping[int, Tensor]]
"""Parameter → dim → bool: what stayed of the axes that lost something."""


@dataclass(frozen=True)
class Fit:
    """Squared error of one layer's output over its variance, before and after."""

    before: float
    after: float


@dataclass(frozen=True)
class Pair:
    """A layer, the original's, and which of the original's outputs it still has."""

    linear: Linear
    original: Linear
    outputs: Tensor
    """int64, in order."""


def pairs(
    model: nn.Module, original: nn.Module, kept: Kept, layers: Iterable[str] | None = None
) -> tuple[dict[str, Pair], tuple[str, ...]]:
    """Match layers by path: → path → pair, and the weights that are no module's own matrix.

    Args:
        model: has the original's paths, and shapes as `kept` says.
        original: the model it was made from.
        kept: `Compacted.kept`.
        layers: which; those whose inputs were cut when None.
    """
    here, there = linears(model), linears(original)
    if layers is None:
        whole = found_layers(original).values()
        asked = [x.param for x in whole if x.in_axis in kept.get(x.param, {})]
    else:
        asked = [weight_name(path) for path in layers]
    paths = {weight_name(path): path for path in here if path in there}
    found = {}
    for name in asked:
        if name in paths:
            path = paths[name]
            outputs = kept_outputs(there[path], path, kept)
            found[path] = Pair(here[path], there[path], outputs)
    return found, tuple(name for name in asked if name not in paths)


@dataclass
class Target:
    """Rows of the original's output and, where it meets one, of the shortcut, by batch."""

    at: list[Tensor] = field(default_factory=list)
    y: list[Tensor] = field(default_factory=list)
    shortcut: list[Tensor] = field(default_factory=list)


@dataclass
class Layerwise:
    """Fits layers of a model, one by one, to the outputs of another that was run once.

    Inputs are those of the model as it is by then. Where a layer's output is added to a
    shortcut, its target also makes up for what the shortcut has lost; of two layers that
    are added to each other, the one fitted last does.
    """

    model: nn.Module
    inputs: list[Any]
    pairs: Mapping[str, Pair]
    targets: Mapping[str, Target]
    """Layer → its targets, in the order of the calls; layers called twice are left out."""
    norms: Mapping[str, nn.Module]
    """Layer → the batch norm that reads it."""
    originals: Mapping[str, nn.Module]
    """The same in the original."""
    fitted: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        original: nn.Module,
        batches: Iterable[Batch],
        wanted: Mapping[str, Pair],
        *,
        positions: int | None = 16,
        seed: int = 0,
    ) -> "Layerwise":
        """Run the original over all batches, keeping `positions` of each input.

        Raises:
            PruneError: there are no batches.
        """
        inputs = [split(batch)[0] for batch in batches]
        if not inputs:
            raise PruneError("cannot reconstruct layers without inputs; the loader is empty")
        with evaluation(original), evaluation(model):
            targets, originals = _targets(original, inputs, wanted, positions, seed)
            inputs = [to_device(x, device_of(model)) for x in inputs]
            following = Following(model, list(wanted))
            with following:
                call(model, inputs[0])
        once = {path: found for path, found in targets.items() if len(found.at) == len(inputs)}
        return cls(model, inputs, wanted, once, following.norms, originals)

    def movable(self, path: str) -> bool:
        """Say whether a layer's output can take a constant: by a bias, or a batch norm."""
        return self.constant(path) is not None

    def sums(self, path: str) -> Normal:
        """Sum up what the layer reads now, and what it should send, without its constant."""
        linear, sums, constant = self.pairs[path].linear, None, self.constant(path)
        with evaluation(self.model):
            for i in range(len(self.inputs)):
                rows, y = self._rows(path, i)
                y = y if constant is None else y - constant.to(y)
                some = Normal.of(rows, y.view(len(y), linear.groups, -1))
                sums = some if sums is None else sums + some
        assert sums is not None
        check_finite(f"inputs or outputs of {path}", sums.gram, sums.cross)
        return sums

    def rows(self, path: str) -> tuple[Tensor, Tensor]:
        """Collect what the layer reads now, (rows, groups, size), and should send, (rows, out)."""
        with evaluation(self.model):
            parts = [self._rows(path, i) for i in range(len(self.inputs))]
        x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        check_finite(f"inputs or outputs of {path}", x, y)
        return x, y

    def fit_(self, path: str, ridge: float, keep: Tensor | None = None) -> Fit:
        """Solve for one layer's weight and constant, and write them in place.

        `keep`, bool (groups, size), says which columns may be used; the others become zero.
        """
        linear, sums = self.pairs[path].linear, self.sums(path)
        matrix = linear.matrix()
        spread = float(sums.centred().squares.sum().clamp(min=1e-30))
        before = sums.lost(matrix) / spread
        if keep is not None:
            sums, matrix = sums.only(keep), matrix * keep[:, None].to(matrix)
        used = sums.centred() if self.movable(path) else sums
        solved = used.solve(matrix, ridge)
        linear.write_(solved.to(matrix))
        if (constant := self.constant(path)) is not None:
            self.set_constant_(path, sums.intercept(solved).flatten() + constant)
        self.fitted.add(path)
        return Fit(before, used.lost(solved) / spread)

    def constant(self, path: str) -> Tensor | None:
        """Return what is added to a layer's output, (out,), in float64; None where nothing can be.

        Its bias, or what a batch norm no longer takes off: the original's mean less its own.
        """
        pair, norms = self.pairs[path], self._norm(path)
        if pair.linear.bias is not None:
            return pair.linear.bias.detach().double()
        if norms is None:
            return None
        mean, original = (norm.get_buffer("running_mean").double() for norm in norms)
        return original[pair.outputs.to(original.device)].to(mean) - mean

    @torch.no_grad()
    def set_constant_(self, path: str, constant: Tensor) -> None:
        """Let so much, (out,), be added to a layer's output, by its bias or behind it.

        The batch norm that reads it gets the original's statistics back.
        """
        pair, norms = self.pairs[path], self._norm(path)
        if pair.linear.bias is not None:
            pair.linear.bias.copy_(constant)
        if norms is None:
            return
        for name in ("running_mean", "running_var"):
            own, original = (norm.get_buffer(name) for norm in norms)
            own.copy_(original[pair.outputs.to(original.device)])
        if pair.linear.bias is None:
            mean = norms[0].get_buffer("running_mean")
            mean.sub_(constant.to(mean))

    def _norm(self, path: str) -> tuple[nn.Module, nn.Module] | None:
        """Return the batch norm that reads a layer, and the original's, where both have one."""
        if path in self.norms and path in self.originals:
            return self.norms[path], self.originals[path]
        return None

    def _rows(self, path: str, i: int) -> tuple[Tensor, Tensor]:
        """Return a layer's inputs and what its outputs should be, for one batch."""
        linear, target = self.pairs[path].linear, self.targets[path]
        at, through = target.at[i], len(target.shortcut) == len(target.at)
        held: dict[str, Tensor] = {}

        def heard(here: str, x: Tensor, y: Tensor) -> None:
            if here == path:
                held["x"] = linear.inputs(x, y.shape, at)
                if not through:
                    raise Stop

        def met(meeting: Met) -> None:
            if meeting.path == path:
                other = meeting.other_path
                if other not in self.targets or other in self.fitted:
                    lost = target.shortcut[i].to(meeting.other) - linear.outputs(meeting.other, at)
                    held["lost"] = lost if meeting.slope is None else unscaled(lost, meeting.slope)
                raise Stop

        with Following(self.model, list(self.targets), heard, met):
            call(self.model, self.inputs[i])
        y = target.y[i].to(held["x"])
        return held["x"], y + held["lost"] if "lost" in held else y


def _targets(
    original: nn.Module,
    inputs: list[Any],
    wanted: Mapping[str, Pair],
    positions: int | None,
    seed: int,
) -> tuple[dict[str, Target], dict[str, nn.Module]]:
    """Run the original once over all inputs: layer, in order of its call, → rows; → norm."""
    found: dict[str, Target] = {}
    norms: dict[str, nn.Module] = {}
    generator = torch.Generator().manual_seed(seed)

    def heard(path: str, x: Tensor, y: Tensor) -> None:
        target, pair = found.setdefault(path, Target()), wanted[path]
        at = pair.original.positions(y, positions, generator)
        target.at.append(at)
        target.y.append(pair.original.outputs(y, at)[:, pair.outputs.to(y.device)])

    def met(meeting: Met) -> None:
        target, pair = found[meeting.path], wanted[meeting.path]
        rows = pair.original.outputs(meeting.other, target.at[-1])
        target.shortcut.append(rows[:, pair.outputs.to(rows.device)])

    for x in inputs:
        with Following(original, list(wanted), heard, met) as following:
            call(original, to_device(x, device_of(original)))
        norms |= following.norms
    return found, norms


def unscaled(lost: Tensor, slope: Tensor) -> Tensor:
    """Divide by the slope, but let channels alone that hardly pass on anything.

    >>> unscaled(torch.tensor([[4.0, 4.0]]), torch.tensor([2.0, 0.0]))
    tensor([[2., 0.]])
    """
    strong = slope.abs() > 1e-3 * slope.abs().max()
    return torch.where(strong, lost / torch.where(strong, slope, 1.0), 0.0)
