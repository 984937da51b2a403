"""The diagonal of the Hessian, estimated."""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from secateurs.core.example import Batch
from secateurs.core.layers import plain_name
from secateurs.evidence.batches import evaluating, placed
from secateurs.evidence.gradients import Loss, tracked


def curvature(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    *,
    generator: Generator,
    probes: int = 1,
) -> dict[str, Tensor]:
    """Diagonal of the Hessian of the loss by parameter name, the mean over batches and probes.

    Each probe z of random signs gives z · (H z), whose expectation is the diagonal; it is
    exact where H is diagonal. Entries may be negative, and zero where the loss is
    piecewise linear in a parameter.

    Args:
        generator: draws the signs.
        probes: how many per batch; the error falls with their square root.

    Raises:
        EvidenceError: there are no batches, or a loss is not one finite number.

    Source: Hutchinson 1990; Bekas, Kokiopoulou & Saad 2007 for the diagonal.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.enable_grad():
        for count, (inputs, labels) in enumerate(placed(model, batches), start=1):
            parameters, value = tracked(model, inputs, labels, loss, count)
            tensors = list(parameters.values())
            first = torch.autograd.grad(
                value, tensors, create_graph=True, allow_unused=True, materialize_grads=True
            )
            for _ in range(probes):
                signs = [_signs(t, generator) for t in tensors]
                slope = sum((g * z).sum() for g, z in zip(first, signs, strict=True))
                second = (
                    torch.autograd.grad(
                        slope, tensors, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                    if isinstance(slope, Tensor) and slope.requires_grad
                    else [torch.zeros_like(t) for t in tensors]
                )
                for name, z, h in zip(parameters, signs, second, strict=True):
                    sums[name] = sums.get(name, 0) + z * h
    return {plain_name(name): total / (count * probes) for name, total in sums.items()}


def _signs(like: Tensor, generator: Generator) -> Tensor:
    drawn = torch.randint(2, like.shape, generator=generator, device=generator.device)
    return (2 * drawn - 1).to(like)
