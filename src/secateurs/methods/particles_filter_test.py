from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from secateurs.core.errors import OptionError
from secateurs.methods.particles_filter import (
    Filter,
    Pools,
    best_of,
    crossover,
    draw,
    effective,
    evolve,
    mutate,
    search,
    sharpen,
    systematic,
)

POOLS = [Pools(6, 6, 3), Pools(12, 3, 1), Pools(12, 3, 2), Pools(8, 4, 4), Pools(8, 2, 0)]


def seeded(seed):
    return Generator().manual_seed(seed)


def allowed(mask, pools):
    return mask.view(-1, pools.among).sum(dim=1).eq(pools.keep).all()


@pytest.mark.parametrize("pools", POOLS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_every_operator_keeps_exact_counts_in_every_pool(pools, seed):
    generator = seeded(seed)
    a, b = draw(pools, generator), draw(pools, generator)
    assert allowed(a, pools)
    assert allowed(crossover(a, b, pools, generator), pools)
    for rate in (0.0, 0.3, 1.0):
        assert allowed(mutate(a, pools, rate, generator), pools)
    assert all(allowed(mask, pools) for mask in evolve([a, a, b, b, a], pools, generator))


def test_a_child_has_what_both_parents_agree_on():
    pools, generator = Pools(20, 20, 8), seeded(0)
    a, b = draw(pools, generator), draw(pools, generator)
    for _ in range(20):
        child = crossover(a, b, pools, generator)
        assert child[a & b].all()
        assert not child[~a & ~b].any()


def test_the_mean_share_of_exchanged_units_is_the_rate():
    pools, generator = Pools(400, 4, 1), seeded(0)
    mask = draw(pools, generator)
    moved = [int((mask & ~mutate(mask, pools, 0.2, generator)).sum()) for _ in range(200)]
    assert sum(moved) / len(moved) / 100 == pytest.approx(0.2, abs=0.01)
    assert torch.equal(mutate(mask, pools, 0.0, generator), mask)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.integers(0, 2**31))
def test_systematic_resampling_rounds_each_weight_up_or_down(values, seed):
    weights = torch.tensor(values, dtype=torch.float64) + 1e-9
    weights = weights / weights.sum()
    counts = torch.bincount(systematic(weights, seeded(seed)), minlength=len(values))
    assert int(counts.sum()) == len(values)
    wanted = len(values) * weights
    assert (counts >= (wanted - 1e-9).floor()).all()
    assert (counts <= (wanted + 1e-9).ceil()).all()


def test_one_particle_is_resampled_to_itself():
    assert systematic(torch.ones(1), seeded(0)).tolist() == [0]
    pools = Pools(4, 4, 2)
    keep, error = search(pools, lambda m: float(m[0]), Filter(masks=1, rounds=1), seeded(0))
    assert allowed(keep, pools)
    assert error == float(keep[0])


def test_weights_sum_to_one_and_prefer_low_errors_however_close_they_lie():
    errors = torch.tensor([0.090, 0.091, 0.092], dtype=torch.float64)
    weights = sharpen(torch.full((3,), 1 / 3, dtype=torch.float64), errors, 2.0)
    assert float(weights.sum()) == pytest.approx(1)
    assert weights[0] > 5 * weights[1] > 25 * weights[2]
    assert torch.allclose(weights, sharpen(torch.full((3,), 1 / 3).double(), errors * 100, 2.0))
    plain = (1 - errors) / (1 - errors).sum()
    assert effective(plain) == pytest.approx(3, abs=1e-4)
    assert effective(weights) < 1.5


def test_equal_errors_leave_the_weights_alone():
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert torch.equal(sharpen(weights, torch.zeros(3), 2.0), weights)
    assert effective(weights) == pytest.approx(1 / 0.375)


def linear_error(seed):
    """A 6-unit linear model whose best 3-unit mask is known by enumeration."""
    generator = seeded(seed)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64) @ mix
    w = torch.randn(6, generator=generator, dtype=torch.float64)

    def error(mask):
        return float(((x @ (w * mask)) - x @ w).square().mean())

    every = [torch.tensor([i in kept for i in range(6)]) for kept in combinations(range(6), 3)]
    return error, min(every, key=error)


def test_the_filter_finds_the_mask_that_enumeration_finds():
    hits = 0
    for seed in range(100):
        error, best = linear_error(seed)
        keep, _ = search(Pools(6, 6, 3), error, Filter(masks=20), seeded(seed + 1000))
        hits += torch.equal(keep, best)
    assert hits >= 95


def test_the_filter_beats_as_many_random_masks():
    weight = torch.arange(1.0, 41.0)
    pools = Pools(40, 40, 20)

    def error(mask):
        return float(weight[~mask].sum())

    wins = 0
    for seed in range(20):
        _, ours = search(pools, error, Filter(masks=20, rounds=10), seeded(seed))
        _, control = best_of(pools, error, 200, seeded(seed + 1000))
        wins += ours < control
    assert wins >= 18


def test_a_mask_is_tried_once():
    tried = []

    def error(mask):
        tried.append(tuple(mask.tolist()))
        return 0.1 * len(tried)

    search(Pools(4, 4, 2), error, Filter(masks=20, rounds=5), seeded(0))
    assert len(tried) == len(set(tried)) <= 6


def test_one_random_mask_is_not_tried_at_all():
    def never(mask):
        raise AssertionError

    keep, error = best_of(Pools(4, 4, 2), never, 1, seeded(0))
    assert int(keep.sum()) == 2
    assert error != error


@pytest.mark.parametrize(
    "wrong", [{"masks": 0}, {"rounds": 0}, {"sharpness": 0.0}, {"mutation": 1.5}]
)
def test_numbers_that_make_no_search_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(OptionError, match=f"{name} is {value:g}; use "):
        Filter(**wrong)
