"""Number format and memory layout of a training step, by timing where the settings say so."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.measure.forward import device_of, set_mode
from secateurs.recovery.objective import Objective
from secateurs.recovery.settings import Trainer

_WORTH = 1.1
"""A choice must be this many times faster than the plain one to be taken."""


@dataclass(frozen=True)
class Computing:
    """How the forward pass is computed."""

    precision: str = "float32"
    channels_last: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of the forward pass."""
        half = self.precision == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)

    def __str__(self) -> str:
        """Name the choice."""
        return self.precision + (" with channels last" if self.channels_last else "")


def lay_out_(model: nn.Module, channels_last: bool) -> None:
    """Change the memory layout of the model's image weights in place; values stay."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def choose(
    model: nn.Module, settings: Trainer, objective: Objective, batch: Callable[[], Any]
) -> tuple[Computing, tuple[str, ...]]:
    """Return how to compute, and sentences saying what was timed; the model is not changed.

    `batch` gives one (input, labels) pair on the model's device; it is called only when
    there is something to time.
    """
    words = settings.precision, settings.channels_last
    images = any(p.ndim == 4 for p in model.parameters())
    precisions = ("float32", "bfloat16") if words[0] == "auto" else (words[0],)
    layouts = (False, True) if words[1] == "auto" and images else (words[1] is True,)
    options = [Computing(p, c) for p in precisions for c in layouts]
    if len(options) == 1:
        return options[0], ()
    x, y = batch()
    seconds = _time(model, options, objective, x, y)
    best = min(options, key=lambda o: seconds[o])
    taken = best if seconds[options[0]] > _WORTH * seconds[best] else options[0]
    timed = ", ".join(f"{o} {1000 * s:.1f} ms" for o, s in seconds.items())
    return taken, (f"computed in {taken}, by timing one step: {timed}",)


def _time(
    model: nn.Module, options: list[Computing], objective: Objective, x: Any, y: Tensor
) -> dict[Computing, float]:
    device = device_of(model)
    copies = {o: copy.deepcopy(model) for o in options}
    taken: dict[Computing, list[float]] = {o: [] for o in options}
    for option, twin in copies.items():
        lay_out_(twin, option.channels_last)
        set_mode(twin, training=True)
    for round_ in range(4):
        for option, twin in copies.items():
            start = time.perf_counter()
            with option.autocast(device):
                loss, _ = objective(twin, x, y)
            loss.backward()  # type: ignore[no-untyped-call]
            twin.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_ > 0:  # the first is warm-up
                taken[option].append(time.perf_counter() - start)
    return {o: median(s) for o, s in taken.items()}
