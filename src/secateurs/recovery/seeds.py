"""Everything random in an epoch, as a function of the seed and the epoch."""

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


@contextmanager
def seeded(seed: int, epoch: int) -> Iterator[None]:
    """Seed torch, Python and NumPy for one epoch; their old states return after.

    An epoch's randomness then depends on nothing that came before, so a run resumed at
    any epoch goes on exactly as if it had never stopped, and the caller's random state is
    left alone.
    """
    mixed = _mix(seed, epoch)
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        with forked():
            torch.manual_seed(mixed)
            random.seed(mixed)
            if numpy:
                numpy.random.seed(mixed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


def forked() -> AbstractContextManager[None]:
    """Return a context after which torch's random state is as before, on every device in use."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ())


def seed_loader(loader: Any, seed: int, epoch: int) -> None:
    """Tell a loader which epoch comes: `set_epoch(epoch)` and its generators, where it has them."""
    sampler = getattr(loader, "sampler", None)
    for part in (loader, sampler, getattr(loader, "batch_sampler", None)):
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(_mix(seed, epoch))


def _mix(seed: int, epoch: int) -> int:
    """Return a number far from that of the neighbours (Weyl sequence, then a mixer)."""
    x = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xD1B54A32D192ED03) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    return (x ^ (x >> 27)) % 2**63
