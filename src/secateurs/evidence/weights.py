"""The weights themselves."""

import torch
from torch import Tensor, nn

from secateurs.core.layers import layers, plain_module, plain_name


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name, not copied; tied ones once, under the first name.

    A parametrized parameter appears under its plain name with its stored value.
    """
    held = plain_module(model).named_parameters()
    return {plain_name(name): p.detach() for name, p in held}


def filter_norms(model: nn.Module, *, p: float = 1) -> dict[str, Tensor]:
    """The p-norm of each output channel's weights, length 1 along the other axes.

    Passed as `weight`, it makes a criterion over coupled channels look at the filters
    that produce a channel and not at what reads it.

    Source: Li et al. 2017, arXiv:1608.08710, for p = 1.
    """
    tensors = weights(model)
    norms = {}
    for name, layer in layers(model).items():
        taps = [1] * len(layer.kernel)
        # Shape: (groups, axis 0 of one group, axis 1, kernel positions)
        grouped = tensors[name].reshape(
            layer.groups, layer.shape[0] // layer.groups, layer.shape[1], -1
        )
        inner = 1 if layer.transposed else 2
        norm = torch.linalg.vector_norm(grouped, ord=p, dim=(inner, 3), keepdim=True)
        if layer.transposed and layer.groups > 1:
            norm = norm.expand(-1, layer.shape[0] // layer.groups, -1, -1)
        norms[name] = norm.reshape(-1, norm.shape[2], *taps)
    return norms
