"""VGG networks for 32 x 32 images: the convolutions, then one linear layer."""

from collections.abc import Sequence

from torch import Tensor, nn

VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG19 = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
_STAGES = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}


class VGGCIFAR(nn.Module):
    """Thirteen or sixteen 3 x 3 convolutions in five stages, pooled between, and a classifier.

    With the widths of VGG-19: 20,035,018 parameters, 5,504 batch-norm channels, and
    398,131,200 MACs in its convolutions.

    Source: Simonyan & Zisserman 2014, arXiv:1409.1556; for CIFAR as in Liu et al. 2017,
    arXiv:1708.06519, whose last pooling is an average.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        classes: int = 10,
        in_channels: int = 3,
        batch_norm: bool = True,
    ) -> None:
        """Use one output width per convolution, so that pruned variants can be built too."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        rest = iter(widths)
        for stage, depth in enumerate(_STAGES[len(widths)]):
            for _ in range(depth):
                width = next(rest)
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2) if stage < 4 else nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, 32, 32) to logits, (batch, classes)."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def vgg16_bn_cifar(*, classes: int = 10, in_channels: int = 3) -> VGGCIFAR:
    """Return VGG-16 with batch norm; its convolutions take 313,196,544 MACs."""
    return VGGCIFAR(VGG16, classes=classes, in_channels=in_channels)


def vgg19_bn_cifar(*, classes: int = 10, in_channels: int = 3) -> VGGCIFAR:
    """Return VGG-19 with batch norm."""
    return VGGCIFAR(VGG19, classes=classes, in_channels=in_channels)


def vgg16_cifar(*, classes: int = 10, in_channels: int = 3) -> VGGCIFAR:
    """Return VGG-16 without batch norm: convolutions with biases."""
    return VGGCIFAR(VGG16, classes=classes, in_channels=in_channels, batch_norm=False)
