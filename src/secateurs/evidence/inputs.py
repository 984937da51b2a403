"""How the inputs of each layer go together: the second moments of what a weight multiplies."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError
from secateurs.core.example import Batch, call
from secateurs.core.layers import plain_name
from secateurs.evidence.batches import evaluating, placed

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def input_moments(
    model: nn.Module, batches: Iterable[Batch], names: Iterable[str]
) -> dict[str, Tensor]:
    """Mean of x xᵀ over samples and positions, by weight's name: (groups, size, size).

    x holds the `size` inputs that one row of the weight, flattened, is multiplied with.
    The size squared numbers of each layer are held at once: ask for few layers at a time
    where they are wide. Layers that no batch reaches are absent.

    Raises:
        EvidenceError: there are no batches, or a name is no weight of a linear layer or of a
            convolution over one or two axes.
    """
    modules = dict(model.named_modules())
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    hooks = []
    for name in map(plain_name, names):
        module = modules.get(name.rpartition(".")[0])
        if not name.endswith("weight") or not isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            raise EvidenceError(
                f"{name!r} is no weight of a linear layer or of a 1-d or 2-d convolution, whose "
                "inputs could be measured; leave it out with exclude"
            )
        hooks.append(module.register_forward_hook(_listen(name, sums, counts)))
    try:
        with evaluating(model), torch.no_grad():
            for inputs, _ in placed(model, batches):
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def _listen(
    name: str, sums: dict[str, Tensor], counts: dict[str, int]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = columns(module, args[0].float() if args[0].dtype == torch.half else args[0])
        sums[name] = sums.get(name, 0) + x @ x.transpose(1, 2)
        counts[name] = counts.get(name, 0) + x.shape[2]

    return hook


def columns(module: nn.Module, x: Tensor) -> Tensor:
    """Lay out what each row of a weight multiplies: (groups, size, samples · positions)."""
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if isinstance(module, nn.Conv1d):
        x, kernel = x.unsqueeze(2), (1, *kernel)
        dilation, stride = (1, *dilation), (1, *stride)
    unfolded = F.unfold(x, kernel, dilation=dilation, stride=stride)
    # Shape: (batch, groups · size, positions) → (groups, size, batch · positions)
    grouped = unfolded.reshape(len(unfolded), module.groups, -1, unfolded.shape[2])
    return grouped.permute(1, 2, 0, 3).flatten(2)
