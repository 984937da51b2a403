import pytest

from secateurs.recovery.rate import RATE_SCHEDULES, rate

GRID = [i / 100 for i in range(101)]


@pytest.mark.parametrize("schedule", RATE_SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_the_rate_stays_between_zero_and_its_peak(schedule, warmup):
    assert all(0 <= rate(schedule, t, warmup=warmup) <= 1 for t in GRID)


@pytest.mark.parametrize("schedule", RATE_SCHEDULES)
def test_every_schedule_reaches_its_peak(schedule):
    assert max(rate(schedule, t) for t in GRID) == pytest.approx(1)


@pytest.mark.parametrize("schedule", RATE_SCHEDULES)
def test_warming_up_climbs_and_then_nothing_climbs(schedule):
    top = 0.3 if schedule == "one_cycle" else 0.2
    rates = [rate(schedule, t, warmup=0.2) for t in GRID]
    peak = GRID.index(top)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_steps_fall_at_a_half_and_three_quarters():
    assert [rate("step", t) for t in (0.49, 0.5, 0.74, 0.75)] == [1, 0.1, 0.1, 0.01]
