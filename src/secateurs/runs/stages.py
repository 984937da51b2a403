"""Training as the parts of a run: each has a name, a folder and checkpoints.

A method trains wherever its paper does. A run that was killed is simply run again: cutting
is cheap and repeats itself exactly, and every part that was trained before is read from its
folder instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from secateurs.recovery.history import History, Progress
from secateurs.recovery.settings import Trainer
from secateurs.recovery.trainer import Loaders, fit


@dataclass
class Stages:
    """Trains models in place, part by part, and remembers what happened."""

    data: Loaders
    folder: Path
    progress: Callable[[str], Progress] | None = None
    """Part's name → where its training reports to."""
    histories: dict[str, History] = field(default_factory=dict)

    def fit(
        self,
        model: nn.Module,
        name: str,
        settings: Trainer,
        *,
        after_step: Callable[[int], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        """Train `model`, or finish the training that was interrupted here."""
        part = f"{len(self.histories):02d}-{name}"
        self.histories[part] = fit(
            model,
            self.data,
            settings,
            folder=self.folder / part,
            after_step=after_step,
            penalty=penalty,
            progress=self.progress(name) if self.progress else None,
        )


@dataclass(frozen=True)
class Recovery:
    """The `Train` that a run hands to a method: its parts are named after the cut."""

    stages: Stages
    label: str
    settings: Trainer

    def __call__(
        self,
        model: nn.Module,
        *,
        name: str,
        epochs: int | None = None,
        after_step: Callable[[int], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        """Train `model` as the cut's settings say, for `epochs` if the method names them."""
        settings = self.settings if epochs is None else replace(self.settings, epochs=epochs)
        self.stages.fit(
            model, f"{self.label}-{name}", settings, after_step=after_step, penalty=penalty
        )
