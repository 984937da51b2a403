"""The residual networks of the CIFAR experiments, with parameter-free (option A) shortcuts."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResNetCIFAR(nn.Module):
    """ResNet of 6n + 2 layers for 32 x 32 images, widths 16-32-64.

    Parameter names are those of the usual PyTorch ports (`conv1`, `layer1.0.conv1`, ...,
    `linear`), so their checkpoints load.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2.
    """

    def __init__(self, blocks: int, *, classes: int = 10, in_channels: int = 3) -> None:
        """Stack three stages of `blocks` basic blocks: 3 for ResNet-20, 18 for ResNet-110."""
        super().__init__()
        self.conv1 = _conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, 32, 32) to logits, (batch, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        """Halve the image when `stride` is 2."""
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else Widen(channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, channels, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class Widen(nn.Module):
    """Option A: every `stride`-th pixel, with channels of zeros on both sides.

    The zeros are buffers rather than padding: a padded channel has no name, so nothing that
    is added to it could be removed, while a channel of a buffer leaves like any other. They
    are not saved, so checkpoints hold what every other implementation's hold.
    """

    front: Tensor
    back: Tensor

    def __init__(self, extra: int, stride: int) -> None:
        """Add `extra` channels, half of them in front."""
        super().__init__()
        self.stride = stride
        self.register_buffer("front", torch.zeros(1, extra // 2, 1, 1), persistent=False)
        self.register_buffer("back", torch.zeros(1, extra - extra // 2, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c, h, w) to (batch, c + extra, h / stride, w / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        batch, _, height, width = x.shape
        # Of x's own type: under autocast, zeros in float32 would make all that follows float32.
        front = self.front.to(x.dtype).expand(batch, -1, height, width)
        back = self.back.to(x.dtype).expand(batch, -1, height, width)
        return torch.cat([front, x, back], dim=1)


def resnet(depth: int) -> Callable[..., ResNetCIFAR]:
    """Return the factory of the network with `depth` layers, 20, 32, 44, 56, 110, ...

    >>> sum(p.numel() for p in resnet(20)().parameters())
    269722
    """
    assert depth % 6 == 2, depth

    def factory(*, classes: int = 10, in_channels: int = 3) -> ResNetCIFAR:
        return ResNetCIFAR((depth - 2) // 6, classes=classes, in_channels=in_channels)

    return factory


def _conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)


def _stage(blocks: int, in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
