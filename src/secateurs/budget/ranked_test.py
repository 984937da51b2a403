import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from secateurs.budget.ranked import lamp, ranked_together
from secateurs.core.errors import BudgetError, ShapeError, UnknownNameError
from secateurs.testing.laws import a_quota_can_be_met
from secateurs.testing.sites import some_scores, some_sites


def scores(**values):
    return {name: torch.tensor(v) for name, v in values.items()}


def test_the_best_of_all_sites_stay():
    quota = ranked_together(some_sites([3, 3]), scores(a=[9.0, 8, 1], b=[7.0, 2, 3]), 0.5)
    assert quota == {"a": 2, "b": 1}


def test_equal_scores_go_to_the_earlier_site():
    quota = ranked_together(some_sites([3, 3]), scores(a=[1.0] * 3, b=[1.0] * 3), 0.67)
    assert quota == {"a": 3, "b": 1}


def test_a_floor_is_paid_for_by_the_other_sites():
    sites, high = some_sites([4, 4]), scores(a=[9.0, 8, 7, 6], b=[1.0, 1, 1, 1])
    assert ranked_together(sites, high, 0.5, floor=0) == {"a": 4, "b": 0}
    assert ranked_together(sites, high, 0.5) == {"a": 3, "b": 1}
    assert ranked_together(sites, high, 0.5, floor=2) == {"a": 2, "b": 2}


def oracle(sites, values, total, floor):
    """Seat the best `floor` of every site, then the best of the rest."""
    order = [(-float(s), i, j) for i, n in enumerate(sites) for j, s in enumerate(values[n])]
    names, keep = list(sites), dict.fromkeys(sites, 0)
    rest = []
    for row in sorted(order):
        name = names[row[1]]
        if keep[name] < floor:
            keep[name] += 1
        else:
            rest.append(name)
    for name in rest[: total - sum(keep.values())]:
        keep[name] += 1
    return keep


@given(
    units=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    density=st.floats(0, 1),
    floor=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_units_ranked_one_by_one_agree_with_brute_force(units, density, floor, seed):
    sites = some_sites(units)
    values = some_scores(sites, seed=seed, ties=True)
    total, low = round(density * sum(units)), sum(min(floor, n) for n in units)
    if total < low:
        with pytest.raises(BudgetError, match=f"the floors of {len(units)} sites need {low}"):
            ranked_together(sites, values, density, floor=floor)
        return
    quota = ranked_together(sites, values, density, floor=floor)
    assert quota == oracle(sites, values, total, floor)
    assert sum(quota.values()) == total
    a_quota_can_be_met(sites, values, quota, floor=floor)


@settings(deadline=None)
@given(
    pools=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=4),
    multiple_of=st.sampled_from([None, 2, 3, 8]),
    density=st.floats(0.3, 1),
    seed=st.integers(0, 999),
)
def test_pools_and_multiples_use_all_places_they_can(pools, multiple_of, density, seed):
    sites = some_sites(
        [n * m for n, m in pools], among={"abcd"[i]: m for i, (_, m) in enumerate(pools)}
    )
    values = some_scores(sites, seed=seed)
    try:
        quota = ranked_together(sites, values, density, multiple_of=multiple_of)
    except BudgetError:
        assume(False)
    a_quota_can_be_met(sites, values, quota)
    left = round(density * sum(s.units for s in sites.values())) - sum(quota.values())
    assert left >= 0
    for name, site in sites.items():
        step = math.lcm(site.units // site.among, multiple_of or 1)
        assert quota[name] % step == 0 or quota[name] == site.units
        assert quota[name] == site.units or left < min(step, site.units - quota[name])


def test_a_rung_is_worth_the_mean_of_its_units():
    # Pools of two: the best of each pool together, then the second best of each.
    sites = some_sites([4, 4], among={"a": 2, "b": 2})
    values = scores(a=[9.0, 0, 1, 0], b=[4.0, 3, 4, 3])
    assert ranked_together(sites, values, 0.75, floor=0) == {"a": 2, "b": 4}


def test_normalising_by_the_mean_undoes_a_change_of_scale():
    sites, values = some_sites([20, 30]), some_scores(some_sites([20, 30]))
    scaled = {"a": 1e-6 * values["a"], "b": values["b"]}
    plain = ranked_together(sites, values, 0.4, normalise="mean")
    assert ranked_together(sites, scaled, 0.4, normalise="mean") == plain
    assert ranked_together(sites, scaled, 0.4)["a"] == 1


def test_groups_compete_apart():
    sites = some_sites([4, 4, 4, 3])
    values = scores(a=[9.0] * 4, b=[8.0] * 4, c=[1.0] * 4, d=[0.0] * 3)
    quota = ranked_together(sites, values, 0.5, groups={"x": ["a", "b"], "y": ["c"]})
    assert quota == {"a": 3, "b": 1, "c": 2, "d": 3}


def test_a_group_too_small_for_its_floors_keeps_them():
    sites = some_sites([1, 10])
    quota = ranked_together(sites, some_scores(sites), 0.3, groups={"x": ["a"], "y": ["b"]})
    assert quota == {"a": 1, "b": 3}


def test_a_group_of_an_unknown_site_lists_the_sites():
    sites = some_sites([2])
    with pytest.raises(UnknownNameError, match="groups name z; the sites are a"):
        ranked_together(sites, some_scores(sites), 0.5, groups={"x": ["z"]})


def test_scores_that_do_not_fit_name_the_site():
    for values, found in ({}, "none"), (scores(a=[1.0, 2.0]), r"\(2,\)"):
        with pytest.raises(
            ShapeError, match=rf"'a' needs a score for each of its 3.*found {found}"
        ):
            ranked_together(some_sites([3]), values, 0.5)


def test_lamp_agrees_with_the_papers_definition():
    sites = some_sites([5, 9])
    values = some_scores(sites)
    expected = {}
    for name, v in values.items():
        squares = v.square()
        sums = torch.stack([squares[v >= x].sum() for x in v])
        expected[name] = squares / sums
    assert lamp(sites, values, 0.5) == ranked_together(sites, expected, 0.5)


def test_lamp_empties_no_site_even_without_a_floor():
    sites = some_sites([50, 2])
    values = scores(a=[1.0] * 50, b=[1e-9, 1e-9])
    assert lamp(sites, values, 2 / 52, floor=0) == {"a": 1, "b": 1}
