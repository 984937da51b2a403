"""Repair without training: every cut layer is fitted anew to what the original computed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.core.example import call
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
class Reconstruction:
    """What was fitted."""

    fits: Mapping[str, Fit]
    """Layer → how far its output was, and is, from the original's, front to back."""
    skipped: tuple[str, ...]
    """Cut weights that are no module's own matrix, and stay as they are."""


def reconstruct_(
    small: nn.Module,
    original: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    kept: Kept,
    *,
    positions: int | None = 16,
    ridge: float = 1e-3,
    seed: int = 0,
    layers: Iterable[str] | None = None,
) -> Reconstruction:
    """Fit the weights of `small` in place, layer by layer, so that outputs are the original's.

    Front to back, inputs are taken from the smaller model as it is by then and targets from
    the original, so that errors are corrected rather than passed on; where a layer's output
    is added to a shortcut, the target also makes up for what the shortcut has lost. The
    constant part of what was removed goes into the bias, or into the batch norm that
    follows. Labels are not used.

    Source: He, Zhang & Sun 2017, arXiv:1707.06168, sections 3.1 (step 2) and 3.2.
    Deviation: the fit is pulled towards the weights that are there (`ridge`), so that few
    samples do no harm; batch norms scale the shortcut's error instead of being folded.

    Args:
        small: the smaller model. Its layers keep the original's paths.
        original: the model it was cut from; not changed.
        batches: inputs, as (input, anything) pairs; a few hundred inputs are enough.
        kept: `Compacted.kept`.
        positions: how many positions of each input are looked at; all when None. Memory
            grows with them and with the widths of the fitted layers.
        ridge: pull towards the present weights, relative to the inputs' mean square.
        seed: of the positions.
        layers: which to fit; those whose inputs were cut when None.

    Raises:
        PruneError: there are no batches.
    """
    wanted, skipped = _wanted(small, original, kept, layers)
    if not wanted:
        return Reconstruction({}, skipped)
    seen = [to_device(x, device_of(original)) for x, _ in batches]
    if not seen:
        raise PruneError("cannot reconstruct layers without inputs; the loader is empty")
    with evaluation(original), evaluation(small):
        targets = _targets(original, seen, wanted, positions, seed)
        inputs = [to_device(x, device_of(small)) for x in seen]
        norms = _norms(small, inputs[0], wanted)
        fits: dict[str, Fit] = {}
        once = [path for path, found in targets.items() if len(found.at) == len(seen)]
        for path in once:
            job = _Job(small, path, wanted[path], targets[path], norms.get(path))
            open_paths = set(once) - set(fits) - {path}
            fits[path] = job.fit_(inputs, list(once), open_paths, ridge)
    missed = tuple(weight_name(path) for path in wanted if path not in fits)
    return Reconstruction(fits, (*skipped, *missed))


@dataclass(frozen=True)
class _Pair:
    """A layer of the smaller model and the outputs of the original that it still has."""

    linear: Linear
    original: Linear
    outputs: Tensor


def _wanted(
    small: nn.Module, original: nn.Module, kept: Kept, layers: Iterable[str] | None
) -> tuple[dict[str, _Pair], tuple[str, ...]]:
    here, there = linears(small), linears(original)
    if layers is not None:
        asked = [weight_name(path) for path in layers]
    else:
        asked = [
            x.param for x in found_layers(original).values() if x.in_axis in kept.get(x.param, {})
        ]
    paths = {weight_name(path): path for path in here if path in there}
    pairs = {}
    for name in asked:
        if name in paths:
            path = paths[name]
            outputs = kept_outputs(there[path], path, kept)
            pairs[path] = _Pair(here[path], there[path], outputs)
    return pairs, tuple(name for name in asked if name not in paths)


@dataclass
class _Target:
    """Rows of the original's output and, where it meets one, of the shortcut."""

    at: list[Tensor] = field(default_factory=list)
    y: list[Tensor] = field(default_factory=list)
    shortcut: list[Tensor] = field(default_factory=list)


def _targets(
    original: nn.Module,
    batches: list[Any],
    wanted: Mapping[str, _Pair],
    positions: int | None,
    seed: int,
) -> dict[str, _Target]:
    """Run the original once over all batches: layer, in order of its call, → target rows."""
    found: dict[str, _Target] = {}
    generator = torch.Generator().manual_seed(seed)

    def heard(path: str, x: Tensor, y: Tensor) -> None:
        target, pair = found.setdefault(path, _Target()), wanted[path]
        at = pair.original.positions(y, positions, generator)
        target.at.append(at)
        target.y.append(pair.original.outputs(y, at)[:, pair.outputs.to(y.device)])

    def met(meeting: Met) -> None:
        target, pair = found[meeting.path], wanted[meeting.path]
        rows = pair.original.outputs(meeting.other, target.at[-1])
        target.shortcut.append(rows[:, pair.outputs.to(rows.device)])

    for x in batches:
        with Following(original, list(wanted), heard, met):
            call(original, x)
    return found


def _norms(small: nn.Module, x: Any, wanted: Mapping[str, _Pair]) -> dict[str, nn.Module]:
    following = Following(small, list(wanted))
    with following:
        call(small, x)
    return following.norms


@dataclass(frozen=True)
class _Job:
    """One layer to fit."""

    small: nn.Module
    path: str
    pair: _Pair
    target: _Target
    norm: nn.Module | None

    def fit_(self, batches: list[Any], paths: list[str], still_open: set[str], ridge: float) -> Fit:
        """Sum over the batches, solve, and write the weight and the intercept."""
        linear = self.pair.linear
        matrix, bias = linear.matrix(), linear.bias
        sums = None
        for i, x in enumerate(batches):
            rows, y = self._rows(i, x, paths, still_open)
            y = y if bias is None else y - bias.detach()
            y = y.view(len(y), linear.groups, -1)
            some = Normal.of(rows, y)
            sums = some if sums is None else sums + some
        assert sums is not None
        centred = sums.centred()
        movable = bias is not None or self.norm is not None
        fitted = (centred if movable else sums).solve(matrix, ridge)
        spread = float(centred.squares.sum().clamp(min=1e-30))
        before = sums.error(matrix) * float(sums.squares.sum()) / spread
        after = (centred if movable else sums).error(fitted)
        after *= float((centred if movable else sums).squares.sum()) / spread
        linear.write_(fitted.to(matrix))
        if movable:
            self._shift_(sums.intercept(fitted).flatten())
        return Fit(before, after)

    def _rows(
        self, i: int, x: Any, paths: list[str], still_open: set[str]
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's inputs and what its outputs should be, for one batch."""
        linear, target, at = self.pair.linear, self.target, self.target.at[i]
        through = len(target.shortcut) == len(target.at)
        held: dict[str, Tensor] = {}

        def heard(path: str, x: Tensor, y: Tensor) -> None:
            if path == self.path:
                held["x"] = linear.inputs(x, y.shape, at)
                if not through:
                    raise Stop

        def met(meeting: Met) -> None:
            if meeting.path == self.path:
                if meeting.other_path not in still_open:
                    lost = target.shortcut[i].to(meeting.other) - linear.outputs(meeting.other, at)
                    held["lost"] = lost if meeting.slope is None else unscaled(lost, meeting.slope)
                raise Stop

        with Following(self.small, paths, heard, met):
            call(self.small, x)
        y = target.y[i].to(held["x"])
        return held["x"], y + held["lost"] if "lost" in held else y

    def _shift_(self, constant: Tensor) -> None:
        with torch.no_grad():
            if (bias := self.pair.linear.bias) is not None:
                bias.add_(constant.to(bias))
            else:
                assert self.norm is not None
                mean = self.norm.get_buffer("running_mean")
                mean -= constant.to(mean)


def unscaled(lost: Tensor, slope: Tensor) -> Tensor:
    """Divide by the slope, but let channels alone that hardly pass on anything.

    >>> unscaled(torch.tensor([[4.0, 4.0]]), torch.tensor([2.0, 0.0]))
    tensor([[2., 0.]])
    """
    strong = slope.abs() > 1e-3 * slope.abs().max()
    return torch.where(strong, lost / torch.where(strong, slope, 1.0), 0.0)


def fold_constants_(
    small: nn.Module, original: nn.Module, batches: Iterable[tuple[Any, Any]], kept: Kept
) -> tuple[str, ...]:
    """Add the mean of what each layer of `small` lost to its bias, in place: → the layers.

    Exact for inputs that were constant and reach every tap; with zero padding the border
    sees fewer. Layers without a bias are left to the batch norm that follows them, whose
    statistics `recalibrate_` measures anew.

    Raises:
        PruneError: there are no batches.
    """
    wanted, _ = _wanted(small, original, kept, None)
    biased = {path: pair for path, pair in wanted.items() if pair.linear.bias is not None}
    if not biased:
        return ()
    means = channel_means(original, batches, list(biased))
    for path, pair in biased.items():
        keep = kept[weight_name(path)][1 - pair.linear.out_axis]
        gone = ~keep.reshape(pair.original.groups, -1) if keep.dim() == 2 else ~keep[None]
        shift = lost_mean(pair.original, means[path], gone.to(means[path].device))
        bias = pair.linear.bias
        assert bias is not None
        with torch.no_grad():
            bias.add_(shift[pair.outputs.to(shift.device)].to(bias))
    return tuple(biased)


def lost_mean(linear: Linear, means: Tensor, gone: Tensor) -> Tensor:
    """Return what channels at their means add to each output: → (out,).

    Args:
        linear: the whole layer.
        means: mean of each input channel, (channels,).
        gone: which of them are lost, bool (groups or 1, channels per group).
    """
    per_group = means.view(linear.groups, -1) * gone
    per_channel = linear.matrix().view(linear.groups, -1, per_group.shape[1], linear.taps).sum(3)
    return torch.einsum("goc,gc->go", per_channel.to(means), per_group).flatten()


def channel_means(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], paths: list[str]
) -> dict[str, Tensor]:
    """Measure the mean of every input channel of some layers, over inputs and positions.

    Raises:
        PruneError: there are no batches.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = dict.fromkeys(paths, 0)
    modules = dict(model.named_modules())

    def listen(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        linear = Linear(modules[path])

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0]
            flat = x.movedim(1 if linear.spatial else -1, 0).flatten(1).double()
            sums[path] = sums.get(path, 0) + flat.sum(1)
            counts[path] += flat.shape[1]

        return hook

    handles = [modules[path].register_forward_pre_hook(listen(path)) for path in paths]
    device, ran = device_of(model), False
    try:
        with evaluation(model):
            for x, _ in batches:
                call(model, to_device(x, device))
                ran = True
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise PruneError("cannot measure the means of channels without inputs; the loader is empty")
    return {path: sums[path] / counts[path] for path in sums}
