"""Repair without training: cut layers are fitted anew, and constants folded."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.core.example import Batch, call
from secateurs.core.within import Amount, Within, checked
from secateurs.measure.forward import evaluation, inputs_of
from secateurs.recovery.layerwise import Fit, Kept, Layerwise, pairs
from secateurs.recovery.rows import Linear, weight_name


@dataclass(frozen=True)
class Reconstruction:
    """What was fitted."""

    fits: Mapping[str, Fit]
    """Layer → how far its output was, and is, from the original's, front to back."""
    skipped: tuple[str, ...]
    """Cut weights that are no module's own matrix, and stay as they are."""


@checked
def reconstruct_(
    small: nn.Module,
    original: nn.Module,
    batches: Iterable[Batch],
    kept: Kept,
    *,
    positions: Annotated[int | None, Within(1)] = 16,
    ridge: Amount = 1e-3,
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
        batches: inputs with or without labels; a few hundred inputs are enough.
        kept: `Compacted.kept`.
        positions: how many positions of each input are looked at; all when None. Memory
            grows with them and with the widths of the fitted layers.
        ridge: pull towards the present weights, relative to the inputs' mean square.
        seed: of the positions.
        layers: which to fit; those whose inputs were cut when None.

    Raises:
        PruneError: there are no batches, or what layers compute is not finite.
        OptionError: a number is out of range.
    """
    wanted, skipped = pairs(small, original, kept, layers)
    if not wanted:
        return Reconstruction({}, skipped)
    work = Layerwise.of(small, original, batches, wanted, positions=positions, seed=seed)
    fits = {path: work.fit_(path, ridge) for path in list(work.targets)}
    missed = tuple(weight_name(path) for path in wanted if path not in fits)
    return Reconstruction(fits, (*skipped, *missed))


def fold_constants_(
    small: nn.Module, original: nn.Module, batches: Iterable[Batch], kept: Kept
) -> tuple[str, ...]:
    """Add the mean of what each layer of `small` lost to its bias, in place: → the layers.

    Exact for inputs that were constant and reach every tap; with zero padding the border
    sees fewer. Layers without a bias are left to the batch norm that follows them, whose
    statistics `recalibrate_` measures anew.

    Raises:
        PruneError: there are no batches.
    """
    wanted, _ = pairs(small, original, kept)
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
    model: nn.Module, batches: Iterable[Batch], paths: list[str]
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
    ran = False
    try:
        with evaluation(model):
            for x in inputs_of(model, batches):
                call(model, x)
                ran = True
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise PruneError("cannot measure the means of channels without inputs; the loader is empty")
    return {path: sums[path] / counts[path] for path in sums}
