"""The two LeNets of the pruning papers, for 28 x 28 grey images with pixels in [0, 1]."""

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet300(nn.Module):
    """LeNet-300-100: 784-300-100-10 with ReLU; 266,610 parameters.

    Source: LeCun et al. 1998, as used by Han et al. 2015, arXiv:1506.02626, table 3.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1) -> None:
        """Take images (batch, in_channels, 28, 28), or anything with as many pixels."""
        super().__init__()
        self.fc1 = nn.Linear(in_channels * 28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]


class LeNet5(nn.Module):
    """The Caffe LeNet-5, 20-50-500-10; 431,080 parameters.

    Not the network of 1998: no non-linearity follows the convolutions, max-pooling does.

    Source: Han et al. 2015, arXiv:1506.02626, table 4 (Caffe's `lenet.prototxt`).
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1) -> None:
        """Take images (batch, in_channels, 28, 28)."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits, (batch, classes)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)  # type: ignore[no-any-return]
