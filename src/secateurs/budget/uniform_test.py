import pytest

from secateurs.budget.uniform import each, per_pool, uniform
from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.testing.laws import a_quota_can_be_met
from secateurs.testing.sites import some_scores, some_sites


@pytest.mark.parametrize(
    ("units", "density", "keep"),
    [(10, 0.3, 3), (5, 0.5, 2), (7, 0.5, 4), (45, 0.7, 32), (100, 0.29, 29), (3, 0.01, 1)],
)
def test_counts_are_rounded_half_to_even_and_never_zero(units, density, keep):
    assert uniform(some_sites([units]), density) == {"a": keep}


def test_pools_are_filled_evenly():
    sites = some_sites([12, 12], among={"a": 4})
    quota = uniform(sites, 0.4)
    assert quota == {"a": 6, "b": 5}
    a_quota_can_be_met(sites, some_scores(sites), quota)


def test_multiples_of_eight_leave_small_sites_whole():
    sites = some_sites([64, 20, 6])
    assert uniform(sites, 0.5, multiple_of=8) == {"a": 32, "b": 8, "c": 6}
    assert uniform(sites, 0.95, multiple_of=8) == {"a": 64, "b": 20, "c": 6}


def test_a_floor_raises_every_site_to_it():
    assert uniform(some_sites([10, 100, 2]), 0.1, floor=4) == {"a": 4, "b": 10, "c": 2}


def test_density_0_without_a_floor_empties_and_1_keeps_all():
    sites = some_sites([5, 8], among={"b": 4})
    assert uniform(sites, 0.0, floor=0) == {"a": 0, "b": 0}
    assert uniform(sites, 1.0) == {"a": 5, "b": 8}


def test_each_site_may_have_its_own_density():
    assert each(some_sites([10, 10]), {"b": 0.2}) == {"a": 10, "b": 2}


def test_a_density_for_an_unknown_site_lists_the_sites():
    with pytest.raises(UnknownNameError, match="given for fc; the sites are a, b"):
        each(some_sites([1, 1]), {"fc": 0.5})


@pytest.mark.parametrize("density", [-0.1, 1.1, 30, float("nan")])
def test_a_density_outside_0_to_1_is_refused(density):
    with pytest.raises(BudgetError, match=f"cannot keep a density of {density}; use 0 to 1"):
        uniform(some_sites([4]), density)


def test_options_out_of_range_are_refused():
    with pytest.raises(BudgetError, match="at least -1 units of every site; use floor=0 or more"):
        uniform(some_sites([4]), 0.5, floor=-1)
    with pytest.raises(BudgetError, match="multiples of 0; use multiple_of=1 or more"):
        uniform(some_sites([4]), 0.5, multiple_of=0)


def test_per_pool_keeps_the_same_in_every_pool():
    sites = some_sites([12, 6], among={"a": 4})
    assert per_pool(sites, 2) == {"a": 6, "b": 2}
    a_quota_can_be_met(sites, some_scores(sites), per_pool(sites, 2))


def test_per_pool_refuses_more_than_a_pool_holds():
    with pytest.raises(BudgetError, match="cannot keep 5 of every 4 units of 'a'; keep 0 to 4"):
        per_pool(some_sites([12], among={"a": 4}), 5)
