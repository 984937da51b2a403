"""What multiplies each channel: the scales of batch norms, or the lengths of filters."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs.evidence.weights import weights


def scales(model: nn.Module) -> dict[str, Tensor]:
    """The scale γ of every batch norm by the name of its weight, not copied.

    Passed as `scale`, it speaks of channels that pass a batch norm, and of no others.
    """
    return {name: t for name, t in weights(model).items() if name in norms(model)}


def norms(model: nn.Module) -> frozenset[str]:
    """The names of the batch norms' scales."""
    return frozenset(
        f"{path}.weight" if path else "weight"
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine
    )
