"""The diagonal of the generalised Gauss-Newton matrix, sampled: one backward pass per probe."""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from secateurs.core.errors import StructureError, UnknownNameError
from secateurs.core.example import Batch
from secateurs.core.layers import plain_name
from secateurs.evidence.batches import evaluating, placed
from secateurs.evidence.gradients import tracked

Kind = Literal["cross_entropy", "squared"]


def gauss_newton(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    generator: Generator,
    kind: Kind = "cross_entropy",
    probes: int = 1,
) -> dict[str, Tensor]:
    """Diagonal of Jᵀ H J by parameter name, estimated; the mean over batches and probes.

    H is the loss's own Hessian by the outputs. Labels are drawn from the model's own
    prediction, so that their gradient by the outputs has mean zero and covariance H; then
    B · (gradient of the batch's mean loss)² has the diagonal as its expectation, and
    samples do not mix. Never negative. The labels of the batches are not looked at.

    Args:
        generator: draws the labels.
        kind: `cross_entropy` of class scores (batch, classes, ...), or `squared`, the sum
            over outputs of (output - label)², averaged over the batch.
        probes: draws per batch; the error falls with the square root of draws × batches.

    Raises:
        UnknownNameError: no such kind.
        StructureError: the output is not one tensor.
        EvidenceError: there are no batches.

    Source: Schraudolph 2002 for the matrix; Martens 2014, arXiv:1412.1193, section 5 for
    sampling labels from the model.
    """
    if kind not in get_args(Kind):
        raise UnknownNameError(f"unknown kind {kind!r}; use one of {', '.join(get_args(Kind))}")
    draw = _classes if kind == "cross_entropy" else _targets
    sums: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.enable_grad():
        for count, (inputs, _) in enumerate(placed(model, batches), start=1):
            for _probe in range(probes):
                samples = 0

                def loss(output: object) -> Tensor:
                    nonlocal samples
                    if not isinstance(output, Tensor):
                        raise StructureError(
                            f"the model's output is a {type(output).__name__}, not one tensor; "
                            "wrap the model so that it returns one"
                        )
                    samples = len(output)
                    return draw(output, generator)

                parameters, value = tracked(model, inputs, (), loss, count)
                found = torch.autograd.grad(
                    value, list(parameters.values()), allow_unused=True, materialize_grads=True
                )
                for name, gradient in zip(parameters, found, strict=True):
                    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                    sums[name] = sums.get(name, 0) + samples * wide.square()
    return {plain_name(name): total / (count * probes) for name, total in sums.items()}


def _classes(scores: Tensor, generator: Generator) -> Tensor:
    """Cross-entropy against labels drawn from the scores themselves."""
    # Shape: classes last, one row per decision.
    rows = scores.movedim(1, -1).flatten(0, -2)
    shares = rows.detach().softmax(dim=1).to(generator.device)
    labels = torch.multinomial(shares, 1, generator=generator).squeeze(1).to(scores.device)
    return F.cross_entropy(rows, labels, reduction="sum") / len(scores)


def _targets(output: Tensor, generator: Generator) -> Tensor:
    """Squared error against the output itself plus noise of variance 1/2."""
    noise = torch.randn(output.shape, generator=generator, device=generator.device)
    target = output.detach() + noise.to(output) * 0.5**0.5
    error: Tensor = (output - target).square().sum() / len(output)
    return error
