from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.budget.counts import Counts
from secateurs.budget.erk import apportion, erk
from secateurs.core.errors import BudgetError
from secateurs.granularity.blocks import Blocks


def matrices(*shapes):
    return {"abcdef"[i]: Blocks("abcdef"[i], s, (1,) * len(s)) for i, s in enumerate(shapes)}


def test_densities_follow_sum_over_product_of_the_lengths():
    # 100 and 40 rows and columns: raw densities 0.02 and 0.05, so counts 200 : 80.
    assert erk(matrices((100, 100), (40, 40)), 280 / 11600) == {"a": 200, "b": 80}


def test_the_kernel_counts_as_lengths():
    quota = erk(matrices((64, 64, 3, 3), (128, 128, 3, 3)), 0.1)
    assert quota["a"] / quota["b"] == pytest.approx((64 + 64 + 6) / (128 + 128 + 6), rel=1e-3)


def test_a_site_that_would_exceed_density_1_stays_whole_and_the_rest_share():
    quota = erk(matrices((100, 100), (50, 100), (2, 3)), 0.3)
    assert quota["c"] == 6
    assert sum(quota.values()) == round(0.3 * 15006)
    assert quota["a"] / quota["b"] == pytest.approx(200 / 150, rel=1e-3)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    density=st.floats(0, 1),
    floor=st.integers(0, 2),
)
def test_the_total_is_met_exactly(shapes, density, floor):
    sites = matrices(*shapes)
    total = round(density * sum(s.units for s in sites.values()))
    low = sum(min(floor, s.units) for s in sites.values())
    if total < low:
        with pytest.raises(BudgetError, match=f"keeps {total} of .* need {low}"):
            erk(sites, density, floor=floor)
        return
    quota = erk(sites, density, floor=floor)
    assert sum(quota.values()) == total
    assert all(min(floor, s.units) <= quota[n] <= s.units for n, s in sites.items())


def test_pools_leave_a_remainder_smaller_than_a_step():
    sites = {"a": Blocks("a", (6, 4), (1, 1), among=4), "b": Blocks("b", (5, 4), (1, 1), among=4)}
    quota = erk(sites, 0.5)
    assert (quota["a"] % 6, quota["b"] % 5) == (0, 0)
    assert 0 <= 22 - sum(quota.values()) < 5


def test_a_site_over_several_parameters_is_refused():
    class Channels:
        units, among, params = 4, None, ("a", "b")

    with pytest.raises(BudgetError, match="but 'x' spans 2; rank these sites together"):
        erk({"x": Channels()}, 0.5)


def test_apportioning_gives_the_largest_remainders_the_last_places():
    counts = dict.fromkeys("abc", Counts(0, 1, 9))
    wanted = {"a": Fraction(13, 10), "b": Fraction(17, 10), "c": Fraction(2)}
    assert apportion(counts, wanted, 5) == {"a": 1, "b": 2, "c": 2}


def test_apportioning_takes_from_those_furthest_above_what_they_want():
    counts = {"a": Counts(3, 1, 9), "b": Counts(0, 1, 9)}
    assert apportion(counts, {"a": Fraction(1), "b": Fraction(4)}, 5) == {"a": 3, "b": 2}
