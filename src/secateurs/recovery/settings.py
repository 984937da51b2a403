"""How to train: the numbers that a run is made of."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from secateurs.core.errors import UnknownNameError
from secateurs.core.within import Within
from secateurs.recovery.rate import RateSchedule

Optimizer = Literal["sgd", "adamw"]
Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class Trainer:
    """Settings of a training run; two runs with equal settings and data end in equal weights.

    That holds on a CPU with one thread count, and except for `auto`, which times both
    choices on the first batch and takes the faster; what it took is in the `History`.

    Raises:
        OptionError: a number is out of range.
        UnknownNameError: a word is not one of the known ones.
    """

    epochs: int = 10
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    schedule: RateSchedule = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    optimizer: Optimizer = "sgd"
    clip_norm: float | None = None
    """Largest norm of the whole gradient."""
    precision: Precision = "float32"
    """`bfloat16` runs the forward pass under autocast; weights stay float32."""
    channels_last: bool | Literal["auto"] = False
    device: str | None = None
    """Where to train; where the model is when None."""
    seed: int = 0
    """Of everything random in an epoch: dropout, shuffling, augmentation."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        Within(0).check("epochs", self.epochs)
        Within(0).check("lr", self.lr)
        Within(0, 1).check("momentum", self.momentum)
        Within(0).check("weight_decay", self.weight_decay)
        Within(0, self.epochs).check("warmup_epochs", self.warmup_epochs)
        Within(0, 1).check("label_smoothing", self.label_smoothing)
        if self.clip_norm is not None:
            Within(0, above=True).check("clip_norm", self.clip_norm)
        _known("schedule", self.schedule, get_args(RateSchedule))
        _known("optimizer", self.optimizer, get_args(Optimizer))
        _known("precision", self.precision, get_args(Precision))
        _known("channels_last", self.channels_last, (True, False, "auto"))

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of these settings over the model's parameters."""
        params = list(model.parameters())
        if self.optimizer == "adamw":
            return torch.optim.AdamW(params, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            params,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov and self.momentum > 0,
        )

    def fingerprint(self) -> str:
        """Return the settings as one JSON line; equal lines mean equal runs.

        The device is left out, so that a run may go on elsewhere.
        """
        words: dict[str, Any] = asdict(self)
        del words["device"]
        return json.dumps(words, sort_keys=True)


def _known(name: str, value: object, words: tuple[object, ...]) -> None:
    if value not in words:
        options = ", ".join(map(str, words))
        raise UnknownNameError(f"unknown {name} {value!r}; choose one of {options}")


FINETUNE = Trainer(epochs=3, lr=0.01, weight_decay=1e-4)
"""Recover a pruned model: a tenth of the usual rate, falling to zero."""
