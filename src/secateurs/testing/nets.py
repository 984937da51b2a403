"""Small networks, one for each kind of layer, and an input for each.

Channel counts are multiples of 8, so most grains fit most layers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Toy:
    """How to build a network, and the shape of one batch of its input."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


def toy(name: str, *, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Build a network of `TOYS` with its input; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TOYS[name].build().eval()
    return model, torch.randn(TOYS[name].input_shape, generator=Generator().manual_seed(seed))


class Tied(nn.Module):
    """A token is embedded, mixed, and read out by the embedding's own weight."""

    def __init__(self) -> None:
        """Tie the read-out to the embedding."""
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.mix = nn.Linear(8, 8)
        self.read = nn.Linear(8, 16, bias=False)
        self.read.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, given as numbers of any type, (batch, length) → (batch, length, 16)."""
        read: Tensor = self.read(self.mix(self.embed(tokens.abs().long() % 16)).relu())
        return read


class Attention(nn.Module):
    """One layer of self-attention."""

    def __init__(self) -> None:
        """Two heads of width 4."""
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to itself: (batch, length, 8) → the same."""
        mixed: Tensor = self.attend(x, x, x, need_weights=False)[0]
        return mixed


TOYS: dict[str, Toy] = {
    "linear": Toy(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)), (3, 8)),
    "conv1d": Toy(lambda: nn.Sequential(nn.Conv1d(8, 16, 3), nn.Conv1d(16, 8, 5)), (2, 8, 9)),
    "conv2d": Toy(
        lambda: nn.Sequential(
            nn.Conv2d(8, 16, (3, 5), padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 2)
        ),
        (2, 8, 6, 7),
    ),
    "conv3d": Toy(lambda: nn.Sequential(nn.Conv3d(8, 8, (2, 3, 4)), nn.ReLU()), (2, 8, 3, 4, 5)),
    "grouped": Toy(lambda: nn.Sequential(nn.Conv2d(16, 24, 3, groups=2)), (2, 16, 4, 5)),
    "depthwise": Toy(lambda: nn.Sequential(nn.Conv2d(8, 16, (3, 2), groups=8)), (2, 8, 4, 5)),
    "transposed1d": Toy(lambda: nn.Sequential(nn.ConvTranspose1d(8, 16, 3)), (2, 8, 5)),
    "transposed2d": Toy(lambda: nn.Sequential(nn.ConvTranspose2d(8, 16, (3, 2))), (2, 8, 4, 5)),
    "transposed3d": Toy(lambda: nn.Sequential(nn.ConvTranspose3d(8, 4, 2)), (2, 8, 2, 3, 2)),
    "grouped_transposed": Toy(
        lambda: nn.Sequential(nn.ConvTranspose2d(16, 24, 3, groups=2)), (2, 16, 4, 5)
    ),
    "tied": Toy(Tied, (2, 5)),
    "attention": Toy(Attention, (2, 3, 8)),
    "recurrent": Toy(lambda: nn.LSTM(8, 8), (4, 2, 8)),
}
