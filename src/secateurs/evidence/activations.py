"""Statistics of what flows into and out of each layer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.core.example import Batch, call
from secateurs.core.layers import Layer, layers, multiplied, plain_module, plain_name
from secateurs.evidence.batches import evaluating, placed


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations per channel, merged batch by batch.

    Source: Chan, Golub & LeVeque 1979, the pairwise form of Welford's update.
    """

    count: int
    mean: Tensor
    deviations: Tensor

    @staticmethod
    def of(values: Tensor, axis: int) -> "_Moments":
        """Take the moments of every channel along `axis`."""
        rows = values.detach().movedim(axis, 0).flatten(1)
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=1, correction=0)
        return _Moments(rows.shape[1], mean, variance * rows.shape[1])

    def add_(self, other: "_Moments") -> None:
        """Merge other values of the same channels."""
        count = self.count + other.count
        gap = other.mean - self.mean
        self.mean = self.mean + gap * (other.count / count)
        between = gap.square() * (self.count * other.count / count)
        self.deviations = self.deviations + other.deviations + between
        self.count = count

    @property
    def variance(self) -> Tensor:
        """Population variance."""
        return self.deviations / self.count

    @property
    def square(self) -> Tensor:
        """Second moment."""
        return self.variance + self.mean.square()


def activations(model: nn.Module, batches: Iterable[Batch]) -> dict[str, dict[str, Tensor]]:
    """Statistics of each linear and convolution layer, by kind and name of its weight.

    - `activation`: mean of each output channel over samples and positions.
    - `activation_variance`: its variance.
    - `activation_square`: its second moment.
    - `input_square`: second moment of each input channel.

    Every tensor has length 1 along the axes of the weight it says nothing about. Outputs
    are taken as the layer returns them, before normalisation and activation function.
    Layers that no batch reaches are absent, as are the projections inside torch's attention and
    recurrent modules, which are not modules of their own; layers called twice are merged.

    Raises:
        EvidenceError: there are no batches.
    """
    model = plain_module(model)
    sent: dict[str, _Moments] = {}
    heard: dict[str, _Moments] = {}
    found = layers(model)
    hooks = [
        module.register_forward_hook(_listen(found[name], sent, heard))
        for name, module in _owners(model, found)
    ]
    try:
        with evaluating(model), torch.no_grad():
            for inputs, _ in placed(model, batches):
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    shaped = {name: found[name] for name in found if name in sent}
    return {
        "activation": {n: _outputs(x, sent[n].mean) for n, x in shaped.items()},
        "activation_variance": {n: _outputs(x, sent[n].variance) for n, x in shaped.items()},
        "activation_square": {n: _outputs(x, sent[n].square) for n, x in shaped.items()},
        "input_square": {n: _inputs(x, heard[n].square) for n, x in shaped.items()},
    }


def _owners(model: nn.Module, found: dict[str, Layer]) -> list[tuple[str, nn.Module]]:
    """Pair weights with the modules that map channels to channels through them."""
    names = {id(p): plain_name(name) for name, p in model.named_parameters()}
    owners = []
    for module in model.modules():
        parts = getattr(module, "parametrizations", {})
        stored = parts["weight"].original if "weight" in parts else getattr(module, "weight", None)
        name = names.get(id(stored))
        if name in found and any(attribute == "weight" for attribute, *_ in multiplied(module)):
            owners.append((name, module))
    return owners


def _listen(
    layer: Layer, sent: dict[str, _Moments], heard: dict[str, _Moments]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    # A linear layer's channels are last; a convolution's come before the positions.
    axis = -1 - len(layer.kernel)

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        for store, values in ((sent, output), (heard, args[0])):
            moments = _Moments.of(values, axis)
            if layer.param in store:
                store[layer.param].add_(moments)
            else:
                store[layer.param] = moments

    return hook


def _outputs(layer: Layer, channels: Tensor) -> Tensor:
    return _along(layer, layer.out_axis, channels)


def _inputs(layer: Layer, channels: Tensor) -> Tensor:
    return _along(layer, layer.in_axis, channels)


def _along(layer: Layer, axis: int, channels: Tensor) -> Tensor:
    """Lay one number per channel along an axis of the weight."""
    taps = [1] * len(layer.kernel)
    if axis == 0:
        return channels.view(-1, 1, *taps)
    if layer.groups == 1:
        return channels.view(1, -1, *taps)
    # Shape: axis 1 counts within a group; each group's numbers repeat along its share of axis 0.
    share = channels.view(layer.groups, 1, -1)
    repeated = share.expand(-1, layer.shape[0] // layer.groups, -1)
    return repeated.reshape(layer.shape[0], -1, *taps)
