"""Networks for scikit-learn's 8 x 8 digits: seconds to train, yet wired like large ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """A small residual network with batch norm; about 98 % on the digits in a few epochs.

    One residual stream of each width, so that removing a channel has to follow a shortcut.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1, width: int = 32) -> None:
        """Use `width` channels, then twice as many at half the resolution."""
        super().__init__()
        self.stem = _conv_bn(in_channels, width)
        self.block1 = Residual(width)
        self.down = _conv_bn(width, 2 * width, stride=2)
        self.block2 = Residual(2 * width)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, 8, 8) to logits, (batch, classes)."""
        x = self.block1(F.relu(self.stem(x)))
        x = self.block2(F.relu(self.down(x)))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two convolutions around which the input passes unchanged."""

    def __init__(self, channels: int) -> None:
        """Keep `channels` channels."""
        super().__init__()
        self.conv1 = _conv_bn(channels, channels)
        self.conv2 = _conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, h, w) to the same shape."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class TinyViT(nn.Module):
    """A vision transformer for the digits: patches of 2 x 2, two blocks, four heads."""

    def __init__(self, *, classes: int = 10, in_channels: int = 1, width: int = 48) -> None:
        """Use tokens of `width` numbers, a multiple of four."""
        super().__init__()
        self.patch = nn.Conv2d(in_channels, width, 2, stride=2)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, heads=4), Block(width, heads=4))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, 8, 8) to logits, (batch, classes)."""
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        x = self.norm(self.blocks(x))
        return self.fc(x.mean(dim=1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and a shortcut."""

    def __init__(self, width: int, *, heads: int) -> None:
        """Split `width` into `heads` equal heads."""
        super().__init__()
        self.head_width = width // heads
        # Kept as it is when a head gets narrower: the trained attention expects it.
        self.scale = self.head_width**-0.5
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, tokens, width) to the same shape."""
        x = x + self.proj(self._attend(self.qkv(self.norm1(x))))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, tokens, _ = qkv.shape
        # Shape: (3, batch, heads, tokens, head width)
        heads = qkv.view(batch, tokens, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return mixed.transpose(1, 2).flatten(2)


def _conv_bn(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))
