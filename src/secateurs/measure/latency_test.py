import time

import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.measure.latency import CALM_S, Latency, Speedup, latency, speedups


class Sleeps(nn.Module):
    def __init__(self, seconds, log=None):
        super().__init__()
        self.seconds, self.log = seconds, log

    def forward(self, x):
        if self.log is not None:
            self.log.append(self.seconds)
        time.sleep(self.seconds)
        return x


def timed(*rounds):
    return Latency(rounds[0], rounds[0], rounds[0], len(rounds), 1, 1, rounds)


def test_a_model_that_sleeps_longer_takes_longer():
    found = latency(
        {"slow": Sleeps(0.008), "fast": Sleeps(0.002)}, torch.zeros(3, 1), rounds=5, min_time_s=0
    )
    assert found["slow"].median_s >= 0.008
    assert 0.002 <= found["fast"].median_s < found["slow"].median_s
    assert found["slow"].low_s <= found["slow"].median_s <= found["slow"].high_s
    assert (found["slow"].runs, found["slow"].batch) == (5, 3)
    assert speedups(found, "slow")["fast"].verdict.startswith("faster by ")


def test_models_take_turns_and_the_order_turns_too():
    log = []
    models = {s: Sleeps(float(s), log) for s in ("0.001", "0.002")}
    latency(models, torch.zeros(1), rounds=2, warmup=1, min_time_s=0)
    assert log[2:] == [0.001, 0.002, 0.002, 0.001]


def test_short_passes_are_repeated_to_fill_the_time():
    found = latency({"a": Sleeps(0.001)}, torch.zeros(1), rounds=2, min_time_s=0.006)
    assert 2 < found["a"].runs <= 12


@pytest.mark.parametrize(("threads", "count", "pauses"), [(1, 2, 0), (2, 2, 10), (2, 1, 0)])
def test_threads_that_spin_may_go_to_sleep_before_the_next_model(
    monkeypatch, threads, count, pauses
):
    taken = []
    monkeypatch.setattr(time, "sleep", taken.append)
    models = {str(i): nn.Identity() for i in range(count)}
    latency(models, torch.zeros(1), threads=threads, rounds=5, min_time_s=0)
    assert taken == [CALM_S] * pauses


def test_threads_and_modes_return():
    before = torch.get_num_threads()
    net = nn.Dropout()
    found = latency({"a": net}, torch.zeros(1, 1), threads=before + 1, rounds=1, min_time_s=0)
    assert found["a"].threads == before + 1
    assert torch.get_num_threads() == before
    assert net.training


def test_threads_return_after_a_failure():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        latency({"a": nn.Linear(2, 2)}, torch.zeros(1, 3), threads=before + 1)
    assert torch.get_num_threads() == before


def test_ratios_pair_the_rounds_so_that_a_slow_phase_cancels():
    calm_then_busy = (1.0, 1.0, 5.0, 5.0), (0.5, 0.5, 2.5, 2.5)
    found = speedups({"a": timed(*calm_then_busy[0]), "b": timed(*calm_then_busy[1])}, "a")
    assert found["b"] == Speedup(2.0, 2.0, 2.0)
    assert found["a"].verdict == "no measurable difference (1.00-1.00x)"


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (Speedup(0.5, 0.4, 0.8), "slower by 2.00x (1.25-2.50)"),
        (Speedup(1.02, 1.01, 1.03), "no measurable difference (1.01-1.03x)"),
        (Speedup(1.5, 0.9, 2.0), "no measurable difference (0.90-2.00x)"),
        (Speedup(29.18, 27.9, 32.5), "faster by 29.2x (27.9-32.5)"),
    ],
)
def test_the_verdict_claims_only_what_the_rounds_agree_on(speedup, words):
    assert speedup.verdict == words


def test_a_base_that_was_not_timed_is_refused():
    with pytest.raises(UnknownNameError, match="'dense' was not timed; timed: a, b"):
        speedups({"a": timed(1.0), "b": timed(1.0)}, "dense")


def test_models_timed_apart_are_not_compared():
    with pytest.raises(PruneError, match=r"'b' was timed in 1 rounds and 'a' in 2; time them tog"):
        speedups({"a": timed(1.0, 2.0), "b": timed(1.0)}, "a")


def test_nothing_to_time_is_refused():
    with pytest.raises(PruneError, match="cannot time 0 models in 20 rounds"):
        latency({}, torch.zeros(1))
