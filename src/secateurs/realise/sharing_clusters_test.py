from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.errors import UnknownNameError
from secateurs.realise.sharing_clusters import STARTS, kmeans, nearest, settle
from secateurs.realise.sharing_optimum import optimum


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def distance(values, centroids):
    """Sum of squared distances to the nearest centroid."""
    values = values.double().flatten()
    return float((values - centroids[nearest(values, centroids)]).square().sum())


def bimodal(n):
    """What pruning leaves: no small values."""
    values = torch.randn(4 * n, generator=seeded())
    return values[values.abs() > 0.7][:n]


def least_by_trying(values, k):
    """The least distance of all ways to cut sorted values into at most k runs."""
    ordered, n = sorted(values), len(values)
    runs = torch.tensor(ordered, dtype=torch.float64)
    return min(
        sum(float((runs[a:b] - runs[a:b].mean()).square().sum()) for a, b in pairwise(c))
        for count in range(min(k, n))
        for inner in combinations(range(1, n), count)
        for c in [(0, *inner, n)]
    )


def test_linear_centroids_are_evenly_spaced_and_density_ones_evenly_filled():
    ordered = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 90.0])
    assert STARTS["linear"](ordered, 3, None).tolist() == [0, 45, 90]
    assert STARTS["density"](ordered, 4, None).tolist() == [1, 3, 5, 90]


def test_random_centroids_are_different_values_while_there_are_enough():
    ordered = torch.arange(5.0)
    assert STARTS["random"](ordered, 5, seeded()).tolist() == [0, 1, 2, 3, 4]
    assert STARTS["random"](ordered, 7, seeded()).unique().numel() == 5


def test_kmeans_plus_plus_takes_no_value_twice_while_others_are_left():
    ordered = torch.tensor([0.0] * 50 + [1.0] * 50 + [5.0])
    for seed in range(20):
        assert STARTS["kmeans++"](ordered, 3, seeded(seed)).tolist() == [0, 1, 5]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("n", [1, 2, 5, 300])
def test_centroids_are_sorted_and_finite_even_where_many_win_nothing(start, n):
    found = kmeans(bimodal(n), 64, start=start, generator=seeded())
    assert found.shape == (64,)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()


@pytest.mark.parametrize("start", STARTS)
def test_centroids_end_as_the_means_of_what_is_nearest(start):
    values = bimodal(500).double()
    found = kmeans(values, 8, start=start, generator=seeded())
    entry = nearest(values, found)
    for i in entry.unique():
        torch.testing.assert_close(found[i], values[entry == i].mean(), rtol=0, atol=1e-12)


def test_linear_centroids_in_the_gap_of_pruned_weights_stay_where_they_are():
    values = torch.cat([torch.linspace(-2, -1, 50), torch.linspace(1, 2, 50)])
    found = kmeans(values, 9)
    entry = nearest(values.double(), found)
    assert set(range(9)) - set(entry.tolist()) == {3, 4, 5}
    assert found[3:6].tolist() == pytest.approx([-0.5, 0, 0.5])


def test_settling_never_makes_it_worse():
    ordered = bimodal(400).double().sort().values
    begin = STARTS["random"](ordered, 16, seeded())
    distances = [distance(ordered, settle(ordered, begin, steps=s)) for s in range(12)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=10), st.integers(1, 5))
def test_the_optimum_is_the_least_of_all_there_are(values, k):
    found = optimum(torch.tensor(values, dtype=torch.float64), k)
    assert found.numel() == k
    least = least_by_trying(values, k)
    assert distance(torch.tensor(values), found) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("k", [2, 7, 40])
def test_no_start_beats_the_optimum(k):
    values = bimodal(3000)
    best = distance(values, optimum(values, k))
    for start in STARTS:
        assert best <= distance(values, kmeans(values, k, start=start, generator=seeded())) + 1e-9


def test_cells_cost_little_even_beside_a_far_value():
    values = torch.cat([bimodal(5000), torch.tensor([400.0])])
    best = distance(values, optimum(values, 16))
    assert best <= distance(values, optimum(values, 16, exact=512)) < 1.02 * best


def test_large_equal_offsets_lose_no_digits():
    values = torch.tensor([1e8 + d for d in (0.0, 1.0, 10.0, 11.0)], dtype=torch.float64)
    assert optimum(values, 2).tolist() == [1e8 + 0.5, 1e8 + 10.5]


def test_a_value_halfway_goes_to_the_lower_centroid():
    values = torch.tensor([0.0, 0.5, 0.6])
    assert nearest(values, torch.tensor([0.0, 1.0])).tolist() == [0, 0, 1]


def test_an_unknown_start_is_named():
    with pytest.raises(UnknownNameError, match="unknown start 'best'; use one of linear, density"):
        kmeans(torch.ones(3), 2, start="best")
