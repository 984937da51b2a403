"""The networks of bench/channel_claims.py, and the place where one is trained and cut."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.data.load import Data, load
from secateurs.measure.accuracy import evaluate
from secateurs.methods.task import Repair, Task
from secateurs.models.lenet import LeNet5, LeNet300
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

MNIST = Trainer(lr=0.03, nesterov=False, channels_last=True)
DEMO = Trainer(epochs=2, lr=0.01, nesterov=False, schedule="constant", channels_last=True)
"""2 epochs are 1,719 steps of 64 images, for the demo's 2,000."""
CIFAR = Trainer(epochs=4, lr=0.2, schedule="one_cycle", channels_last=True)


class LeNet5BN(nn.Module):
    """LeNet-5 with a batch norm and a ReLU behind each hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 20, 5, bias=False), nn.BatchNorm2d(20)
        self.conv2, self.bn2 = nn.Conv2d(20, 50, 5, bias=False), nn.BatchNorm2d(50)
        self.fc1, self.bn3 = nn.Linear(800, 500, bias=False), nn.BatchNorm1d(500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.fc1(x.flatten(1))))
        return self.fc2(x)


class Tiny(nn.Module):
    """Four 3 x 3 convolutions of 16, 32, 64 and 64 filters for CIFAR-10; 3.4 M MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv4, self.bn4 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = F.relu(self.bn4(self.conv4(x)))
        return self.fc(x.mean(dim=(2, 3)))


DENSE: dict[str, tuple[Callable[[], nn.Module], str, Trainer]] = {
    "lenet300": (LeNet300, "mnist", replace(MNIST, epochs=10, channels_last=False)),
    "lenet5": (LeNet5, "mnist", replace(MNIST, epochs=4)),
    "lenet5-demo": (LeNet5, "mnist", DEMO),
    "lenet5-bn": (LeNet5BN, "mnist", replace(MNIST, epochs=3)),
    "tiny": (Tiny, "cifar10", CIFAR),
}
"""Network → how to build it, what it learns and how."""


@dataclass(frozen=True)
class Lab:
    """One seed of one claim: data, and a place for what is trained."""

    net: str
    seed: int
    out: Path
    """Shared by all claims: the dense networks lie here."""
    folder: Path
    data: Data
    epochs: int | None = None
    """Of any training, at most: a quick look."""

    def settings(self, how: Trainer) -> Trainer:
        return replace(how, epochs=min(how.epochs, self.epochs or how.epochs), seed=self.seed)

    def dense(self) -> nn.Module:
        """Train the network the seed stands for, or read it back."""
        make, _, how = DENSE[self.net]
        torch.manual_seed(self.seed)
        model = make()
        self.fit(model, "dense", how, self.out / f"{self.net}-{self.seed}")
        return model

    def fit(self, model: nn.Module, part: str, how: Trainer, folder: Path | None = None) -> None:
        """Train a model in place, in a folder called `part` unless another is given."""
        Stages(self.data, folder or self.folder / part).fit(model, part, self.settings(how))

    def task(
        self, model: nn.Module, part: str = "", how: Trainer | None = None, repair: Repair = "bn"
    ) -> Task:
        """Ask for a model to be cut and, with settings, trained in a folder called `part`."""
        stages = Stages(self.data, self.folder / part)
        return Task(
            model,
            self.data.example,
            train=Recovery(stages, part, self.settings(how)) if how else None,
            batches=lambda: self.data.batches(20),
            repair=repair,
            seed=self.seed,
        )

    def right(self, model: nn.Module) -> float:
        """Share of the test images that a model gets right, in %."""
        assert self.data.test is not None
        return 100 * evaluate(model, self.data.test).value


def lab_of(
    net: str, claim: str, seed: int, out: Path, data_dir: str | None, epochs: int | None
) -> Lab:
    """MNIST: 55,000 images to learn from, in batches of 64; CIFAR-10: 45,000, of 128."""
    name = DENSE[net][1]
    size, held = (64, 1 / 12) if name == "mnist" else (128, 0.1)
    data = load(name, data_dir=data_dir, batch_size=size, valid_fraction=held, seed=seed)
    return Lab(net, seed, out, out / f"{claim}-{seed}", data, epochs)
