"""Running statistics of batch norms, measured anew after a cut."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs.core.errors import PruneError
from secateurs.core.example import Batch, call
from secateurs.core.finite import check_finite
from secateurs.measure.forward import evaluation, inputs_of


def recalibrate_(
    model: nn.Module, batches: Iterable[Batch], *, batches_max: int | None = 100
) -> int:
    """Re-estimate the running statistics of all batch norms of `model` in place; → how many.

    Each becomes the plain average of the batches' means and unbiased variances, so batches
    should be equally long. Everything else runs in evaluation mode (dropout is off); modes,
    momenta and weights stay. A model without batch norms is not run. If the loader or the
    model fails, the old statistics return.

    Args:
        model: on the device where it shall run.
        batches: inputs with or without labels, such as the training loader.
        batches_max: how many to use; all when None.

    Raises:
        PruneError: there are no batches, or what is measured is not finite.
    """
    norms = tracked(model)
    if not norms:
        return 0
    used = 0
    with evaluation(model), collecting(norms):
        for x in inputs_of(model, batches):
            call(model, x)
            used += 1
            if used == batches_max:
                break
        if used == 0:
            raise PruneError("cannot recalibrate batch norms without batches; the loader is empty")
    return len(norms)


def tracked(model: nn.Module) -> list[_BatchNorm]:
    """List the batch norms that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def collecting(norms: list[_BatchNorm]) -> Iterator[None]:
    """Average the statistics of everything that passes; put the old ones back on an error."""
    momenta = [norm.momentum for norm in norms]
    old = [{k: v.clone() for k, v in norm.named_buffers(recurse=False)} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average instead of an exponential one
        norm.training = True  # `evaluation` puts the mode back
    try:
        yield
        means_and_variances = (t for norm in norms for t in norm.buffers() if t.dim())
        check_finite("statistics of batch norms", *means_and_variances)
    except BaseException:
        with torch.no_grad():
            for norm, buffers in zip(norms, old, strict=True):
                for name, value in buffers.items():
                    norm.get_buffer(name).copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
