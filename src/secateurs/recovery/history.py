"""What happened during training."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data; numbers are of its examples as they were trained on."""

    epoch: int
    """From 1."""
    loss: float
    accuracy: float
    """Fraction right, 0 to 1."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    valid_loss: float | None = None
    valid_accuracy: float | None = None


@dataclass(frozen=True)
class History:
    """All epochs of a run and how it was computed."""

    epochs: tuple[Epoch, ...] = ()
    precision: str = "float32"
    channels_last: bool = False
    notes: tuple[str, ...] = ()
    """Plain sentences: what was chosen by timing, where the run was resumed."""

    @property
    def last(self) -> Epoch | None:
        """The last epoch, if there was one."""
        return self.epochs[-1] if self.epochs else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "History":
        """Read back what `to_json` gave."""
        epochs = tuple(Epoch(**e) for e in plain["epochs"])
        return History(
            epochs, plain["precision"], plain["channels_last"], tuple(plain.get("notes", ()))
        )


@dataclass(frozen=True)
class Tick:
    """Where training stands, told after every step."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps done in this epoch, from 1."""
    steps: int | None
    """Steps of an epoch; None when the loader does not say."""
    loss: float
    """Mean over the epoch so far."""


Progress = Callable[[Tick], None]
