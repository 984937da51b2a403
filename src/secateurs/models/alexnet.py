"""AlexNet: Caffe's, which the papers count, one for 32 x 32 images, and its small forerunner."""

import torch.nn.functional as F
from torch import Tensor, nn


class AlexNetCIFAR(nn.Module):
    """Five convolutions and three linear layers for 32 x 32 images; 5,871,434 parameters.

    The order and roles of AlexNet's layers, shrunk: 5 x 5 first filters at stride 1 instead
    of 11 x 11 at stride 4, and linear layers of 1,024.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 3) -> None:
        """Take images (batch, in_channels, 32, 32)."""
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 3 * 3, 1024), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(1024, 1024), nn.ReLU()),
            nn.Linear(1024, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


class AlexNetQuick(nn.Module):
    """Three convolutions of 5 x 5 and two linear layers for 32 x 32 images; 145,578 parameters.

    Source: Krizhevsky's CIFAR-10 networks of cuda-convnet, in Caffe's form `cifar10_quick`.
    Deviation: every pooling takes the largest value, and a ReLU stands between the linear
    layers.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 3) -> None:
        """Take images (batch, in_channels, 32, 32)."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(conv(x)), 3, 2, ceil_mode=True)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


class AlexNetCaffe(nn.Module):
    """The AlexNet of the papers: grouped conv2, conv4 and conv5; 60,965,224 parameters.

    torchvision's AlexNet has other shapes, so per-layer counts of the papers fit only this.

    Source: Caffe's `bvlc_alexnet`, counted by Han et al. 2015, arXiv:1506.02626, table 5.
    """

    def __init__(self, *, classes: int = 1000, in_channels: int = 3) -> None:
        """Take images (batch, in_channels, 227, 227)."""
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, 96, 11, stride=4), nn.ReLU()),
            *(nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()),
            *(nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]
