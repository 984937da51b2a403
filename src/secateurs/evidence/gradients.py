"""Gradients of a loss, averaged over batches."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateurs.core.errors import EvidenceError
from secateurs.core.example import Batch, Example, arguments
from secateurs.core.layers import plain_module, plain_name
from secateurs.evidence.batches import evaluating, placed

Loss = Callable[..., Tensor]
"""(output, *labels of the batch) → scalar."""


def gradients(
    model: nn.Module, batches: Iterable[Batch], loss: Loss
) -> dict[str, dict[str, Tensor]]:
    """Gradients of the loss by kind and parameter name.

    - `gradient`: the mean over batches.
    - `gradient_square`: the mean over batches of the square of each batch's gradient. It
      is the diagonal of the empirical Fisher information only if a batch is one sample.

    Frozen parameters are measured too; those the loss does not reach get zeros. Every
    batch weighs the same. Half-precision gradients are summed in float32.

    Args:
        batches: (inputs, *labels) each; or inputs alone, for a loss of the output alone.
        loss: called as loss(output, *labels).

    Raises:
        EvidenceError: there are no batches, or a loss is not one finite number.
    """
    model = plain_module(model)
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.enable_grad():
        for count, (inputs, labels) in enumerate(placed(model, batches), start=1):
            parameters, value = tracked(model, inputs, labels, loss, count)
            found = torch.autograd.grad(
                value, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(parameters, found, strict=True):
                wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                sums[name] = sums[name] + wide if name in sums else wide
                squares[name] = squares.get(name, 0) + wide.square()
    return {
        "gradient": {plain_name(name): total / count for name, total in sums.items()},
        "gradient_square": {plain_name(name): total / count for name, total in squares.items()},
    }


def tracked(
    model: nn.Module, inputs: Example, labels: tuple[object, ...], loss: Loss, number: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the loss on stand-ins for the parameters: → (stand-ins by name, loss).

    The model's own parameters, their gradients and its buffers are not touched.
    """
    parameters = {
        name: p.detach().requires_grad_()
        for name, p in model.named_parameters()
        if p.is_floating_point()
    }
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    args, kwargs = arguments(inputs)
    value = loss(functional_call(model, {**parameters, **buffers}, args, kwargs), *labels)
    if not isinstance(value, Tensor) or value.numel() != 1 or not bool(value.isfinite()):
        shown = tuple(value.shape) if isinstance(value, Tensor) and value.numel() != 1 else value
        raise EvidenceError(
            f"the loss of batch {number} is {shown}, not one finite number; check the loss, "
            f"the labels and the model's weights"
        )
    return parameters, value.reshape(())
