"""Layers most of whose weights are predicted: W = U V with a fixed dictionary U and a learned V.

Source: Denil, Shakibi, Dinh, Ranzato & de Freitas 2013, arXiv:1306.0543, "Predicting
parameters in deep learning". It is evidence of redundancy, not a pruning rule: the
dictionary is chosen before training, and only V learns.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from secateurs.core.errors import ShapeError

Dictionary = Literal["kernel", "gaussian", "connections", "low_rank"]


def grid(*lengths: int) -> Tensor:
    """Return the coordinates of a grid's positions, (positions, axes), the last axis fastest.

    >>> grid(1, 3).tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]
    """
    return torch.tensor(list(product(*map(range, lengths))), dtype=torch.float64)


def squared_exponential(points: Tensor, width: float) -> Tensor:
    """Return exp(-|p_i - p_j|² / 2 width²), (n, n): inputs that lie close are alike.

    Source: section 3.2, for pixels.
    """
    return torch.exp(-torch.cdist(points, points).square() / (2 * width**2))


def covariance(inputs: Tensor, *, squared: bool = False) -> Tensor:
    """Return the empirical covariance of the coordinates of (samples, n), or its square.

    Source: section 3.2, for inputs without a topology: activations of the layer before.
    """
    centred = inputs.double() - inputs.double().mean(dim=0)
    found = centred.T @ centred / len(inputs)
    return found.square() if squared else found


def ridge(kernel: Tensor, chosen: Tensor, penalty: float) -> Tensor:
    """Return U = k_αᵀ (K_α + penalty · I)⁻¹, (n, chosen): weights at α → all weights.

    Args:
        kernel: (n, n), over the input coordinates.
        chosen: the coordinates α, int64.
        penalty: of the ridge; 0 fails where smooth kernels are nearly singular.

    Source: equation 2.
    """
    among = kernel[chosen][:, chosen]
    eye = torch.eye(len(chosen), dtype=kernel.dtype, device=kernel.device)
    solved: Tensor = torch.linalg.solve(among + penalty * eye, kernel[chosen])
    return solved.T


def choose(n: int, count: int, generator: Generator) -> Tensor:
    """Draw `count` of n coordinates without replacement, ascending."""
    return torch.randperm(n, generator=generator)[:count].sort().values


def dictionaries(
    kind: Dictionary,
    n: int,
    count: int,
    *,
    columns: int = 1,
    kernel: Tensor | None = None,
    penalty: float = 0.1,
    generator: Generator,
) -> list[Tensor]:
    """Return U_1 .. U_J, each (n, count), of a set α of their own.

    Args:
        kind: `kernel` predicts by ridge regression; `gaussian` and `connections` are the
            controls: random numbers, and random inputs without prediction (columns of the
            identity). `low_rank` starts as `gaussian`, and is meant to be trained.
        n: input coordinates.
        count: how many values each output learns.
        columns: J, independent sets. One for all would force every output into the same
            subspace.
        kernel: (n, n), for `kernel`.
        penalty: of the ridge.
        generator: of the draws.

    Raises:
        ShapeError: `kernel` is missing or of another size, or `count` is not in 1 to n.
    """
    if not 1 <= count <= n:
        raise ShapeError(f"cannot learn {count} of {n} values an output; use 1 to {n}")
    if kind == "kernel" and (kernel is None or kernel.shape != (n, n)):
        found = "none" if kernel is None else tuple(kernel.shape)
        raise ShapeError(f"a kernel dictionary over {n} inputs needs ({n}, {n}), found {found}")
    made = []
    for _ in range(columns):
        if kind in ("gaussian", "low_rank"):
            made.append(torch.randn(n, count, generator=generator) / count**0.5)
            continue
        chosen = choose(n, count, generator)
        if kind == "connections":
            made.append(torch.eye(n)[:, chosen])
        else:
            assert kernel is not None
            made.append(ridge(kernel, chosen, penalty).float())
    return made


class Predicted(nn.Module):
    """A linear layer of J columns, y = concat_j (x U_j) V_j + b; W itself is never made."""

    def __init__(
        self,
        dictionaries: Sequence[Tensor],
        out: int,
        *,
        train_u: bool = False,
        generator: Generator,
    ) -> None:
        """Start V so that W = U V is as large as a dense layer's initial weights.

        Args:
            dictionaries: U_1 .. U_J, each (in, values).
            out: outputs, a multiple of J.
            train_u: learn the dictionaries too, the low-rank baseline.
            generator: of V.

        Raises:
            ShapeError: J does not divide `out`.
        """
        super().__init__()
        share, rest = divmod(out, len(dictionaries))
        if rest:
            raise ShapeError(
                f"cannot share {out} outputs among {len(dictionaries)} columns; use a divisor"
            )
        n = dictionaries[0].shape[0]
        self.u = nn.ParameterList(nn.Parameter(u.clone(), train_u) for u in dictionaries)
        self.v = nn.ParameterList()
        for u in dictionaries:
            v = 2 * torch.rand(u.shape[1], share, generator=generator) - 1
            size = (u @ v).square().mean().sqrt()
            self.v.append(nn.Parameter(v / size / (3 * n) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in) to (batch, out)."""
        parts = [(x @ u) @ v for u, v in zip(self.u, self.v, strict=True)]
        return torch.cat(parts, dim=1) + self.bias

    @property
    def weight(self) -> Tensor:
        """W, (in, out), for looking at."""
        return torch.cat([u @ v for u, v in zip(self.u, self.v, strict=True)], dim=1)

    @property
    def learned(self) -> float:
        """Fraction of the weights that learn: V's values over W's."""
        n, out = self.u[0].shape[0], len(self.bias)
        learning = [p.numel() for p in (*self.u, *self.v) if p.requires_grad]
        return float(sum(learning) / (n * out))


def predicted_conv(conv: nn.Conv2d, dictionaries: Sequence[Tensor]) -> nn.Sequential:
    """Return a convolution with atoms, then 1 x 1 combinations: W = U V for filters.

    The atoms do not learn; V starts at the least-squares fit of the given weights.

    Args:
        conv: says sizes, stride and padding; its weights are what V fits. Ungrouped.
        dictionaries: U_1 .. U_J, each (in · kernel, values), equally many values.

    Raises:
        ShapeError: the sizes do not fit, or the convolution is grouped.
    """
    n, count = dictionaries[0].shape
    if conv.groups > 1 or n != conv.weight[0].numel() or conv.out_channels % len(dictionaries):
        raise ShapeError(
            f"{len(dictionaries)} dictionaries over {n} coordinates do not fit a convolution of "
            f"{conv.weight[0].numel()} weights a filter, {conv.out_channels} filters and "
            f"{conv.groups} groups"
        )
    columns = len(dictionaries)
    share = conv.out_channels // columns
    atoms = nn.Conv2d(
        conv.in_channels,
        count * columns,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=False,
    )
    mix = nn.Conv2d(count * columns, conv.out_channels, 1, groups=columns, bias=True)
    filters = torch.split(conv.weight.detach().flatten(1), share)
    with torch.no_grad():
        u = torch.cat([u.T for u in dictionaries])
        atoms.weight.copy_(u.view_as(atoms.weight))
        v = [
            torch.linalg.lstsq(u, w.T).solution.T
            for u, w in zip(dictionaries, filters, strict=True)
        ]
        mix.weight.copy_(torch.cat(v).view_as(mix.weight))
        assert mix.bias is not None
        mix.bias.copy_(torch.zeros_like(mix.bias) if conv.bias is None else conv.bias)
    atoms.weight.requires_grad_(False)
    return nn.Sequential(atoms, mix)
