"""How often a sparse accelerator touches its output memory: Mao's count, on real activations.

The machine multiplies every non-zero weight with every non-zero activation and adds the
product to an accumulator in memory, one read-modify-write each. Where a whole row of
weights stays, the products of neighbouring activations land on the same outputs and are
summed before they are written: one reference for each output that the row touches.

Source: Mao et al. 2017, arXiv:1705.08922, section 6; the counting is our reconstruction,
which reproduces the paper's 65 to 70 % on VGG-16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.core.errors import StructureError


def expected_ratio(size: int, active: float) -> float:
    """Return references by rows over references by elements, at equal weight density.

    Args:
        size: weights in a row.
        active: chance of an activation not to be zero, independent of the others.

    >>> [round(expected_ratio(3, p), 2) for p in (0.35, 0.4, 1.0)]
    [0.69, 0.65, 0.33]
    """
    return float((1 - (1 - active) ** size) / (size * active))


def references(conv: nn.Conv2d, keep: Tensor, x: Tensor, *, rows: bool) -> int:
    """Count the memory references of one convolution on a batch.

    Args:
        conv: says stride, padding, dilation and groups; padded zeros cost nothing.
        keep: which weights stay, bool, of the weight's shape; by rows only rows that have
            a weight left count, as if they were whole.
        x: the input, (batch, in, h, w); its zeros cost nothing.
        rows: whether the products of one row of weights are summed before they are written.

    Raises:
        StructureError: the padding is no number of pixels, or not of zeros.
    """
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise StructureError(
            f"cannot count references with padding {conv.padding!r} of {conv.padding_mode}; "
            "use a number of pixels of zeros"
        )
    active = (x != 0).double()
    kept = keep.double()
    high, wide = conv.padding
    active = F.pad(active, (wide, wide, high, high))
    if rows:
        size, apart = conv.kernel_size[1], conv.dilation[1]
        active = F.max_pool2d(active, (1, size), stride=1, dilation=(1, apart))
        kept = kept.amax(dim=3, keepdim=True)
    touched = F.conv2d(active, kept, None, conv.stride, 0, conv.dilation, conv.groups)
    return int(touched.sum())


def inputs_of(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """Return what reaches a module when the model is called on `x`."""
    caught: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach()))
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(x)
    finally:
        hook.remove()
        model.train(training)
    return caught[0]
