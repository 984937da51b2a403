"""A plain training loop that survives being killed."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.measure.accuracy import Batches, evaluate
from secateurs.measure.forward import device_of, labelled, set_mode, to_device
from secateurs.recovery.checkpoint import CHECKPOINT, load_training, save_training
from secateurs.recovery.choose import Computing, choose, lay_out_
from secateurs.recovery.history import Epoch, History, Progress, Tick
from secateurs.recovery.objective import Objective, classify
from secateurs.recovery.rate import rate
from secateurs.recovery.seeds import seed_loader, seeded
from secateurs.recovery.settings import Trainer

_DEFAULT = Trainer()


class Loaders(Protocol):
    """What training needs of a data set; both can be iterated over again and again."""

    @property
    def train(self) -> Batches:
        """(input, labels) batches to learn from."""

    @property
    def valid(self) -> Batches | None:
        """Batches to watch; None when there are none."""


def fit(
    model: nn.Module,
    data: Loaders,
    settings: Trainer = _DEFAULT,
    *,
    objective: Objective | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    folder: str | os.PathLike[str] | None = None,
    after_step: Callable[[int], None] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    progress: Progress | None = None,
) -> History:
    """Train `model` in place and return what happened; modes and random state return after.

    With a folder, every finished epoch is written to it. A run killed at any moment and
    called again in the same way goes on from its last epoch and, on a CPU with the same
    thread count, ends in the same weights bit for bit. What `after_step` or `penalty`
    remember outside the model is not written.

    Args:
        model: moved to `settings.device` if one is named. May be inside `masked(...)`.
        data: `train` and `valid` batches, (input, labels). Loaders with `set_epoch` or a
            generator are told the epoch.
        settings: see `Trainer`.
        objective: what to minimise; cross-entropy by default. See `supervised`, `distil`.
        optimizer: one of your own, over the model's parameters; its learning rates are the
            peaks of the schedule.
        folder: where checkpoints live; none are written when None.
        after_step: called with the number of steps done, from 1, after each.
        penalty: a scalar of the model that is added to the loss.
        progress: called after each step; every tenth on an accelerator.

    Raises:
        PruneError: the loss stopped being finite, or there are no training batches.
        FileError: the folder holds a damaged file, another model or other settings.
        ShapeError: the labels do not fit the model's output.
    """
    if settings.device is not None:
        model.to(settings.device)
    optimizer = optimizer or settings.build(model)
    path = Path(folder) / CHECKPOINT if folder is not None else None
    history = None
    if path is not None and path.exists():
        history = load_training(path, model, optimizer, settings.fingerprint())
        done = f"resumed after epoch {len(history.epochs)} of {settings.epochs}"
        history = replace(history, notes=(*history.notes, done))
    aim = objective or classify(settings.label_smoothing)
    if history is None:
        history = _begin(model, data, settings, aim)
    computing = Computing(history.precision, history.channels_last)
    run = _Run(model, optimizer, settings, computing, aim, after_step, penalty, progress)
    with _prepared(model, optimizer, computing):
        for epoch in range(len(history.epochs), settings.epochs):
            record = _epoch(run, data, epoch, path)
            history = replace(history, epochs=(*history.epochs, record))
            if path is not None:
                save_training(path, model, optimizer, history, settings.fingerprint())
    return history


@dataclass(frozen=True)
class _Run:
    """Everything that stays the same from step to step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    settings: Trainer
    computing: Computing
    objective: Objective
    after_step: Callable[[int], None] | None
    penalty: Callable[[nn.Module], Tensor] | None
    progress: Progress | None


def _begin(model: nn.Module, data: Loaders, settings: Trainer, objective: Objective) -> History:
    """Settle how to compute."""
    device = device_of(model)

    def batch() -> object:
        for pair in data.train:
            return to_device(pair, device)
        raise PruneError("cannot train without batches; the training loader is empty")

    with seeded(settings.seed, -1):
        computing, notes = choose(model, settings, objective, batch)
    return History((), computing.precision, computing.channels_last, notes)


@contextmanager
def _prepared(
    model: nn.Module, optimizer: torch.optim.Optimizer, computing: Computing
) -> Iterator[None]:
    """Hold training mode and memory layout; put modes, layout and peak rates back."""
    modes = [(module, module.training) for module in model.modules()]
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])
    try:
        lay_out_(model, computing.channels_last)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for group in optimizer.param_groups:
            group["lr"] = group.pop("peak_lr")
        if computing.channels_last:
            lay_out_(model, False)


def _epoch(run: _Run, data: Loaders, epoch: int, path: Path | None) -> Epoch:
    start = time.perf_counter()
    set_mode(run.model, training=True)
    seed_loader(data.train, run.settings.seed, epoch)
    with seeded(run.settings.seed, epoch):
        loss, accuracy, lr = _steps(run, data.train, epoch, path)
    seconds = time.perf_counter() - start
    record = Epoch(epoch + 1, loss, accuracy, lr, seconds)
    if data.valid is None:
        return record
    valid = evaluate(run.model, data.valid)
    return replace(record, valid_loss=valid.loss, valid_accuracy=valid.value)


def _steps(
    run: _Run, batches: Batches, epoch: int, path: Path | None
) -> tuple[float, float, float]:
    """Train for one epoch: → (mean loss, fraction right, last learning rate)."""
    device = device_of(run.model)
    steps = len(batches) if isinstance(batches, Sized) else None
    summed = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    total, step, lr, every = 0, 0, run.settings.lr, 1 if device.type == "cpu" else 10
    for x, y in labelled(batches):
        lr = _set_rate(run, epoch + (step / steps if steps else 0))
        labels = y.to(device, non_blocking=True)
        loss, scores = _step(run, to_device(x, device), labels)
        step += 1
        summed += loss.detach() * len(labels)
        correct += (scores.detach().argmax(dim=1) == labels).sum()
        total += labels.numel()
        if run.after_step:
            run.after_step(epoch * (steps or 0) + step)
        if step % every == 0 or step == steps:
            mean = float(summed) / total
            _check_finite(mean, run, epoch, step, path)
            if run.progress:
                run.progress(Tick(epoch + 1, run.settings.epochs, step, steps, mean))
    if step == 0:
        raise PruneError("cannot train without batches; the training loader is empty")
    mean = float(summed) / total
    _check_finite(mean, run, epoch, step, path)
    return mean, int(correct) / total, lr


def _step(run: _Run, x: object, y: Tensor) -> tuple[Tensor, Tensor]:
    with run.computing.autocast(y.device):
        loss, scores = run.objective(run.model, x, y)
        if run.penalty:
            loss = loss + run.penalty(run.model)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if run.settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip_norm)
    run.optimizer.step()
    return loss, scores


def _set_rate(run: _Run, epochs_done: float) -> float:
    s = run.settings
    share = rate(s.schedule, epochs_done / s.epochs, warmup=s.warmup_epochs / s.epochs)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share
    return float(run.optimizer.param_groups[0]["lr"])


def _check_finite(mean: float, run: _Run, epoch: int, step: int, path: Path | None) -> None:
    if math.isfinite(mean):
        return
    kept = f"; epoch {epoch} is kept in {str(path)!r}" if path is not None and epoch else ""
    raise PruneError(
        f"the loss became {mean} at step {step} of epoch {epoch + 1}; "
        f"lower lr (now {run.settings.lr}), clip gradients, or check the data{kept}"
    )
