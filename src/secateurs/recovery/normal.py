"""Least squares from sums: what stays small however many rows are seen."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Normal:
    """The sums that a least-squares fit needs, in float64, one problem per group.

    With inputs (rows, groups, size) and targets (rows, groups, out) the memory is
    groups · size · (size + out) numbers, whatever the number of rows.
    """

    rows: int
    gram: Tensor
    """(groups, size, size): inputs times inputs."""
    cross: Tensor
    """(groups, out, size): targets times inputs."""
    inputs: Tensor
    """(groups, size): sums of inputs."""
    targets: Tensor
    """(groups, out): sums of targets."""
    squares: Tensor
    """(groups, out): sums of squared targets."""

    @staticmethod
    def of(x: Tensor, y: Tensor) -> "Normal":
        """Sum over the rows of inputs (rows, groups, size) and targets (rows, groups, out)."""
        x, y = x.double(), y.double()
        gram = torch.einsum("rgs,rgt->gst", x, x)
        cross = torch.einsum("rgo,rgs->gos", y, x)
        return Normal(len(x), gram, cross, x.sum(0), y.sum(0), y.square().sum(0))

    def __add__(self, other: "Normal") -> "Normal":
        """Merge the sums of other rows."""
        return Normal(
            self.rows + other.rows,
            self.gram + other.gram,
            self.cross + other.cross,
            self.inputs + other.inputs,
            self.targets + other.targets,
            self.squares + other.squares,
        )

    def centred(self) -> "Normal":
        """Subtract the means, so that a fit has an intercept."""
        x, y = self.inputs / self.rows, self.targets / self.rows
        return Normal(
            self.rows,
            self.gram - self.rows * x[:, :, None] * x[:, None, :],
            self.cross - self.rows * y[:, :, None] * x[:, None, :],
            torch.zeros_like(x),
            torch.zeros_like(y),
            self.squares - self.rows * y.square(),
        )

    def solve(self, start: Tensor, ridge: float = 0.0) -> Tensor:
        """Return the matrix nearest to fitting, (groups, out, size), pulled towards `start`.

        Minimises ‖Y − X Wᵀ‖² + ridge · n · ‖W − start‖², n the mean square of an input
        times the rows. Directions in which no input varies stay as in `start`; so does
        everything when `ridge` is large.
        """
        start = start.to(self.gram)
        gap = self.cross - start @ self.gram
        if ridge == 0:
            inverse: Tensor = torch.linalg.pinv(self.gram, hermitian=True)
            return start + gap @ inverse
        level = self.gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        level = (ridge * level).clamp(min=torch.finfo(level.dtype).tiny ** 0.5)
        eye = torch.eye(self.gram.shape[1], dtype=level.dtype, device=level.device)
        factor = torch.linalg.cholesky(self.gram + level[:, None, None] * eye)
        change: Tensor = torch.cholesky_solve(gap.mT, factor).mT
        return start + change

    def intercept(self, weight: Tensor) -> Tensor:
        """Return the constant that makes the mean of a fit right: → (groups, out)."""
        fit = torch.einsum("gos,gs->go", weight.to(self.gram), self.inputs)
        return (self.targets - fit) / self.rows

    def only(self, keep: Tensor) -> "Normal":
        """Let only some columns be used, bool (groups, size); the others read as zeros."""
        keep = keep.to(self.gram)
        return replace(
            self,
            gram=self.gram * keep[:, :, None] * keep[:, None, :],
            cross=self.cross * keep[:, None],
            inputs=self.inputs * keep,
        )

    def lost(self, weight: Tensor) -> float:
        """Return the squared error of a matrix, summed over rows and outputs."""
        weight = weight.to(self.gram)
        fitted = torch.einsum("gos,gst,got->go", weight, self.gram, weight)
        crossed = torch.einsum("gos,gos->go", weight, self.cross)
        return max(0.0, float((self.squares - 2 * crossed + fitted).sum()))
