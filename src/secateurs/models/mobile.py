"""An inverted-residual network for 32 x 32 images: depthwise convolutions, narrow shortcuts."""

from torch import Tensor, nn


class MobileCIFAR(nn.Module):
    """MobileNetV2 at CIFAR size: five stages, expansion 4.

    Source: Sandler et al. 2018, arXiv:1801.04381, with fewer blocks and a stem of stride 1.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 3) -> None:
        """Take images (batch, in_channels, 32, 32)."""
        super().__init__()
        stages = [(16, 1, 1), (24, 2, 2), (32, 2, 2), (64, 3, 2), (96, 2, 1)]
        layers: list[nn.Module] = [_conv(in_channels, 16, 3), nn.ReLU6()]
        channels = 16
        for width, blocks, stride in stages:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, width, stride if block == 0 else 1))
                channels = width
        self.features = nn.Sequential(*layers, _conv(channels, 256, 1), nn.ReLU6())
        self.classifier = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Widen by a 1 x 1, filter each channel alone, narrow by a 1 x 1."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        """Pass the input around the block where the shapes allow it."""
        super().__init__()
        wide = 4 * in_channels
        self.shortcut = stride == 1 and in_channels == channels
        self.layers = nn.Sequential(
            *(_conv(in_channels, wide, 1), nn.ReLU6()),
            *(_conv(wide, wide, 3, stride=stride, groups=wide), nn.ReLU6()),
            _conv(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, channels, h / stride, w / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def _conv(
    in_channels: int, channels: int, size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        in_channels, channels, size, stride, padding=size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(channels))
