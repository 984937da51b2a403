"""The low-rank map that brings a layer's outputs nearest to what they should be."""

import torch
from torch import Tensor

Map = tuple[Tensor, Tensor, Tensor]
"""left (out, rank), right (rank, out), constant (out,): y becomes left · right · y + constant."""


def reduced(y: Tensor, z: Tensor, rank: int, *, constant: bool = True) -> Map:
    """Minimise ‖z − (M y + b)‖² over maps M of a rank, in closed form.

    The outputs of the unrestricted fit are projected on their largest principal axes.

    Source: Izenman 1975, "Reduced-rank regression for the multivariate linear model".

    Args:
        y: what the layer sends, (rows, out).
        z: what it should send, (rows, out).
        rank: at most `out`.
        constant: whether there is a b; zeros otherwise.
    """
    y, z = y.double(), z.double()
    mean_y = y.mean(0) if constant else torch.zeros_like(y[0])
    mean_z = z.mean(0) if constant else torch.zeros_like(z[0])
    y, z = y - mean_y, z - mean_z
    fit = torch.linalg.pinv(y.T @ y, rtol=1e-10, hermitian=True) @ (y.T @ z)
    sent = y @ fit
    axes = torch.linalg.eigh(sent.T @ sent).eigenvectors.flip(1)[:, :rank]
    right = axes.T @ fit.T
    return axes, right, mean_z - axes @ (right @ mean_y)


def reduced_before_relu(y: Tensor, z: Tensor, rank: int, *, rounds: int = 20) -> Map:
    """Minimise ‖relu(z) − relu(M y + b)‖² over maps of a rank, by turns.

    A free answer s stands between the two: minimise ‖relu(z) − relu(s)‖² + t ‖s − (M y + b)‖²,
    each entry of s in closed form and M, b by `reduced`, while t grows.

    Source: Zhang et al. 2015, arXiv:1505.06798, section 2.2: t is 0.01, then 1.
    """
    y, z = y.double(), z.double()
    best = reduced(y, z, rank)
    wanted, least = z.relu(), _lost(best, y, z)
    found = best
    for t in [0.01] * rounds + [1.0] * rounds:
        found = reduced(y, answers(wanted, apply(found, y), t), rank)
        if (lost := _lost(found, y, z)) < least:
            best, least = found, lost
    return best


def answers(wanted: Tensor, sent: Tensor, t: float) -> Tensor:
    """Minimise (wanted − relu(s))² + t (s − sent)² over s, entry by entry; wanted ≥ 0."""
    below, above = sent.clamp(max=0), ((t * sent + wanted) / (t + 1)).clamp(min=0)
    low = wanted.square() + t * (below - sent).square()
    high = (wanted - above).square() + t * (above - sent).square()
    return torch.where(high < low, above, below)


def apply(found: Map, y: Tensor) -> Tensor:
    """Send rows through a map."""
    left, right, constant = found
    return y @ right.T @ left.T + constant


def _lost(found: Map, y: Tensor, z: Tensor) -> float:
    return float((z.relu() - apply(found, y).relu()).square().sum())
