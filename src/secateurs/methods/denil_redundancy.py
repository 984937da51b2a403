"""How predictable each layer of a trained network is, for `secateurs inspect --redundancy`."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.core.layers import layers
from secateurs.evidence.weights import weights
from secateurs.methods.denil import choose, ridge

LARGEST = 1024
"""Layers with more inputs are judged by this many of them, drawn at random."""

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Ridges that are tried, as shares of the kernel's mean diagonal."""


@dataclass(frozen=True)
class Redundancy:
    """How much of one layer's weights follows from a few of them."""

    name: str
    shape: tuple[int, ...]
    fraction: float
    """Of each filter's weights that was shown."""
    predicted: float
    """Share of the rest's squared size that was predicted: 1 all, 0 or less nothing."""


def redundancy(
    model: nn.Module,
    *,
    fraction: float = 0.25,
    draws: int = 5,
    seed: int = 0,
) -> dict[str, Redundancy]:
    """Predict every layer's weights from a fraction of them: weight name → how well.

    The filters of a layer are halved. One half says which inputs have alike weights (the
    second moments of its weights are the kernel); the other half's hidden weights are then
    predicted from the shown ones by kernel ridge regression, and the halves change places.
    Only hidden weights of filters that the kernel has not seen count, so weights drawn at
    random give about 0. Layers with fewer than 4 inputs or outputs are left out.

    Args:
        model: trained; its weights are all that is looked at.
        fraction: of each filter's weights that is shown.
        draws: how many random sets are averaged.
        seed: of the draws.

    Raises:
        BudgetError: the fraction is not between 0 and 1.

    Source: Denil et al. 2013, arXiv:1306.0543, equation 2. Deviation: the paper trains with
    the dictionary; here a trained network is looked at, the kernel is of its weights, and
    the ridge is the one of PENALTIES that predicts best within the half that is known.
    """
    if not 0 < fraction < 1:
        raise BudgetError(
            f"cannot predict from a fraction of {fraction:g}; use one between 0 and 1"
        )
    values, found = weights(model), {}
    for name, layer in layers(model).items():
        # Shape: filters first; a grouped convolution's filters see its group's inputs.
        matrix = values[name].detach().movedim(layer.out_axis, 0).flatten(1).double().cpu()
        if min(matrix.shape) < 4:
            continue
        generator = Generator().manual_seed(seed)
        wrong, total = 0.0, 0.0
        for _ in range(draws):
            for error, size in _halves(matrix, fraction, generator):
                wrong, total = wrong + error, total + size
        found[name] = Redundancy(name, layer.shape, fraction, 1 - wrong / total if total else 1.0)
    return found


def _halves(matrix: Tensor, fraction: float, generator: Generator) -> Iterator[tuple[float, float]]:
    """Yield (squared error, squared size) of the hidden weights of each half of the filters."""
    filters, inputs = matrix.shape
    if inputs > LARGEST:
        matrix = matrix[:, choose(inputs, LARGEST, generator)]
        inputs = LARGEST
    matrix = matrix[torch.randperm(filters, generator=generator)]
    shown = choose(inputs, max(1, round(fraction * inputs)), generator)
    for known, judged in (matrix[::2], matrix[1::2]), (matrix[1::2], matrix[::2]):
        tried = {p: _error(known[::2], known[1::2], shown, p) for p in PENALTIES}
        best = min(tried, key=tried.__getitem__)
        yield _error(known, judged, shown, best), _size(judged, shown)


def _error(known: Tensor, judged: Tensor, shown: Tensor, penalty: float) -> float:
    """Predict the hidden weights of the judged filters; the ridge is in units of the kernel."""
    kernel = known.T @ known / len(known)
    u = ridge(kernel, shown, penalty * float(kernel.diagonal().mean()) or 1.0)
    return _size(judged - judged[:, shown] @ u.T, shown)


def _size(rows: Tensor, shown: Tensor) -> float:
    """Sum the squares of what is not shown."""
    return float(rows.square().sum() - rows[:, shown].square().sum())
