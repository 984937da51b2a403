"""Infinite feature selection: which features vary most and repeat each other least."""

import torch
from torch import Tensor

from secateurs.core.errors import EvidenceError


def inf_fs(features: Tensor, *, alpha: float = 0.5) -> Tensor:
    """Score each feature by all paths through it: features (samples, n) → (n,), float64.

    Source: Roffo et al. 2015, "Infinite feature selection"; A = α max(σᵢ, σⱼ) +
    (1 - α)(1 - |ρᵢⱼ|), with σ the standard deviations brought to 0 to 1 and ρ Spearman's
    correlations. A feature that never changes counts as a copy of all others.

    Raises:
        EvidenceError: there are fewer than two samples.
    """
    if len(features) < 2:
        raise EvidenceError(
            f"cannot compare features over {len(features)} sample; give two or more, of many inputs"
        )
    features = features.double()
    spread = features.std(dim=0, correction=0)
    reach = spread.max() - spread.min()
    spread = (spread - spread.min()) / reach if reach > 0 else torch.ones_like(spread)
    alike = spearman(features).abs()
    links = alpha * torch.maximum(spread[:, None], spread) + (1 - alpha) * (1 - alike)
    return path_sums(links)


def path_sums(links: Tensor, *, damping: float = 0.9) -> Tensor:
    """Row sums of (I - rA)⁻¹ - I: the weight of all paths from each node, (n,), float64.

    r is `damping` over the spectral radius of `links`, symmetric and not negative, (n, n).
    """
    links = links.double()
    ones = torch.ones(len(links), dtype=torch.float64, device=links.device)
    radius = _radius(links)
    if radius == 0:
        return 0 * ones
    eye = torch.eye(len(links), dtype=torch.float64, device=links.device)
    sums: Tensor = torch.linalg.solve(eye - damping / radius * links, ones) - ones
    return sums


def spearman(features: Tensor) -> Tensor:
    """Rank correlations of the columns, ties at their mean rank: (samples, n) → (n, n).

    A column that is constant correlates with everything by 1.
    """
    columns = features.t().contiguous()
    ordered = columns.sort(dim=1).values
    low = torch.searchsorted(ordered, columns, right=False)
    high = torch.searchsorted(ordered, columns, right=True)
    ranks = (low + high).double()
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(ranks, dim=1, keepdim=True)
    unit = ranks / length.where(length > 0, torch.ones_like(length))
    constant = (length == 0).squeeze(1)
    alike: Tensor = unit @ unit.t()
    return alike.masked_fill(constant[:, None] | constant, 1.0)


def _radius(links: Tensor) -> float:
    """Largest eigenvalue, by power iteration; `links` is symmetric and not negative."""
    vector = torch.ones(len(links), dtype=links.dtype, device=links.device)
    value = 0.0
    for _ in range(1000):
        image = links @ vector
        length = float(torch.linalg.vector_norm(image))
        if length == 0 or abs(length - value) <= 1e-14 * length:
            return length
        value, vector = length, image / length
    return value
