"""How long one forward pass takes, and which of several models is really faster."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.example import Example, call, tensors
from secateurs.measure.forward import device_of, evaluation, to_device
from secateurs.measure.human import three

CALM_S = 0.02
"""For how long the threads of an engine may go on looking for work after a call."""
_NOTICEABLE = 0.03
"""A ratio closer to 1 than this is not called a difference."""


@dataclass(frozen=True)
class Latency:
    """Seconds that one forward pass took: median and quartiles over the rounds."""

    median_s: float
    low_s: float
    """Lower quartile."""
    high_s: float
    """Upper quartile."""
    runs: int
    """How many forward passes were timed."""
    threads: int
    batch: int
    rounds_s: tuple[float, ...] = field(default=(), repr=False)
    """One number per round; round i of every model ran side by side."""


def latency(
    models: Mapping[str, nn.Module],
    example: Example,
    *,
    threads: int | None = None,
    rounds: int = 20,
    warmup: int = 3,
    min_time_s: float = 0.02,
) -> dict[str, Latency]:
    """Time the models side by side on one input: name → median and spread in seconds.

    Every round times each model once, so that a machine that slows down slows all of them;
    the order turns by one each round. With several threads a short pause precedes each model,
    so that none is slowed by threads of the last one that go on spinning. One timing is the
    median of as many passes as fill `min_time_s`. Runs in evaluation mode; modes and the
    thread count return afterwards.

    Args:
        models: what to compare, by name.
        example: the input; moved to each model's device.
        threads: how many CPU threads; as set by torch when None.
        rounds: how often each model is timed.
        warmup: untimed passes before the first round.
        min_time_s: the least time one model runs in one round.

    Raises:
        PruneError: there is no model, or a count is below 1.
    """
    if not models or rounds < 1 or warmup < 1 or (threads is not None and threads < 1):
        raise PruneError(
            f"cannot time {len(models)} models in {rounds} rounds after {warmup} passes on "
            f"{threads} threads; each number must be at least 1"
        )
    names = list(models)
    taken: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as held, _threads(threads) as used:
        passes = {n: held.enter_context(_pass(m, example)) for n, m in models.items()}
        repeats = {n: _repeats(p, warmup, min_time_s) for n, p in passes.items()}
        for turn in range(rounds):
            for i in range(len(names)):
                name = names[(turn + i) % len(names)]
                if len(names) > 1:
                    calm(used)
                taken[name].append(median(passes[name]() for _ in range(repeats[name])))
    found = tensors(example)
    batch = len(found[0]) if found and found[0].ndim else 1
    return {n: _latency(taken[n], rounds * repeats[n], used, batch) for n in names}


def calm(threads: int) -> None:
    """Let the threads of the engine that ran last go to sleep, so that they slow no other."""
    if threads > 1:
        time.sleep(CALM_S)


def _latency(rounds_s: list[float], runs: int, threads: int, batch: int) -> Latency:
    low, middle, high = _quartiles(rounds_s)
    return Latency(middle, low, high, runs, threads, batch, tuple(rounds_s))


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


@contextmanager
def _threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _pass(model: nn.Module, example: Example) -> Iterator[Callable[[], float]]:
    """Yield a function that runs the model once and returns the seconds it took."""
    device = device_of(model)
    inputs = to_device(example, device)
    cuda = device.type == "cuda"

    def once() -> float:
        if cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call(model, inputs)
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with evaluation(model):
        yield once


def _repeats(once: Callable[[], float], warmup: int, min_time_s: float) -> int:
    taken = [once() for _ in range(warmup)]
    return max(1, round(min_time_s / max(min(taken), 1e-9)))


@dataclass(frozen=True)
class Speedup:
    """How many times faster one model is than another: median and quartiles over rounds."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the numbers allow one to say.

        A difference is claimed only when the median is 3 % off and three quarters of the
        rounds agree on its sign.

        >>> Speedup(1.8, 1.7, 1.9).verdict, Speedup(1.1, 0.9, 1.3).verdict
        ('faster by 1.80x (1.70-1.90)', 'no measurable difference (0.90-1.30x)')
        """
        if self.low > 1 and self.ratio > 1 + _NOTICEABLE:
            return f"faster by {three(self.ratio)}x ({three(self.low)}-{three(self.high)})"
        if self.high < 1 and self.ratio < 1 / (1 + _NOTICEABLE):
            low, middle, high = 1 / self.high, 1 / self.ratio, 1 / self.low
            return f"slower by {three(middle)}x ({three(low)}-{three(high)})"
        return f"no measurable difference ({three(self.low)}-{three(self.high)}x)"


def speedups(latencies: Mapping[str, Latency], base: str) -> dict[str, Speedup]:
    """Compare every model with `base`, round by round: name → how many times faster it is.

    Raises:
        UnknownNameError: `base` was not timed.
        PruneError: the models were not timed together.
    """
    if base not in latencies:
        raise UnknownNameError(f"{base!r} was not timed; timed: {', '.join(latencies)}")
    reference = latencies[base].rounds_s
    result = {}
    for name, timed in latencies.items():
        if not reference or len(timed.rounds_s) != len(reference):
            raise PruneError(
                f"{name!r} was timed in {len(timed.rounds_s)} rounds and {base!r} in "
                f"{len(reference)}; time them together in one call of latency()"
            )
        ratios = [b / t for b, t in zip(reference, timed.rounds_s, strict=True)]
        low, middle, high = _quartiles(ratios)
        result[name] = Speedup(middle, low, high)
    return result
