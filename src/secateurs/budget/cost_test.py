import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.budget.cost import to_cost
from secateurs.core.cut import decide
from secateurs.core.errors import BudgetError
from secateurs.testing.laws import a_quota_can_be_met
from secateurs.testing.sites import some_scores, some_sites


def chain(sites):
    """Cost of layers in a row: products of neighbouring widths, as coupled channels have."""

    def cost(decision):
        widths = [3, *(int(keep.sum()) for keep in decision.values()), 10]
        return sum(a * b for a, b in itertools.pairwise(widths))

    return cost


@settings(deadline=None)
@given(
    units=st.lists(st.integers(4, 40), min_size=1, max_size=4),
    pooled=st.booleans(),
    multiple_of=st.sampled_from([None, 4]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 999),
)
def test_the_target_is_never_exceeded_and_no_unit_more_would_fit(
    units, pooled, multiple_of, share, seed
):
    units = [4 * (n // 4) for n in units]
    sites = some_sites(units, among={"a": units[0] // 2} if pooled else None)
    values = some_scores(sites, seed=seed, ties=True)
    cost = chain(sites)

    def price(quota):
        return cost(decide(sites, values, quota))

    step = {n: 4 if multiple_of else (2 if pooled and n == "a" else 1) for n in sites}
    lowest, highest = price(step), price({n: s.units for n, s in sites.items()})
    target = round(lowest + share * (highest - lowest))
    quota = to_cost(sites, values, cost, target, multiple_of=multiple_of, tolerance=1.0)
    a_quota_can_be_met(sites, values, quota)
    assert price(quota) <= target
    for name, site in sites.items():
        if quota[name] < site.units:
            assert price({**quota, name: quota[name] + step[name]}) > target


def test_the_ranking_decides_who_stays():
    sites = some_sites([4, 4])
    values = {"a": torch.tensor([9.0, 8, 7, 6]), "b": torch.tensor([5.0, 4, 3, 2])}
    cost = lambda decision: sum(int(keep.sum()) for keep in decision.values())  # noqa: E731
    assert to_cost(sites, values, cost, 5) == {"a": 4, "b": 1}
    assert to_cost(sites, values, cost, 5, normalise="mean") == {"a": 3, "b": 2}


def test_what_the_ranking_leaves_over_is_filled():
    # `a` costs 10 a unit and ranks first; 3 are left when the next one does not fit.
    sites = some_sites([3, 9])
    values = {"a": torch.tensor([9.0, 8, 7]), "b": torch.arange(9.0) / 10}
    cost = lambda d: 10 * int(d["a"].sum()) + int(d["b"].sum())  # noqa: E731
    assert to_cost(sites, values, cost, 24) == {"a": 2, "b": 4}


def test_the_full_cost_keeps_everything():
    sites = some_sites([4, 6])
    assert to_cost(sites, some_scores(sites), chain(sites), 3 * 4 + 4 * 6 + 60) == {"a": 4, "b": 6}


def test_a_target_below_the_floors_says_what_can_be_reached():
    sites = some_sites([4, 6])
    with pytest.raises(BudgetError, match="cannot cut the cost to 5; 14 to 96 can be reached"):
        to_cost(sites, some_scores(sites), chain(sites), 5)
    with pytest.raises(BudgetError, match="cannot cut the cost to nan"):
        to_cost(sites, some_scores(sites), chain(sites), float("nan"))


def test_a_target_above_the_dense_cost_says_what_can_be_reached():
    sites = some_sites([4, 6])
    with pytest.raises(BudgetError, match=r"within 1.00% of a cost of 500: .* is 96; 14 to 96"):
        to_cost(sites, some_scores(sites), chain(sites), 500)


def test_units_too_coarse_for_the_tolerance_are_refused():
    sites = some_sites([4])
    cost = lambda decision: 100 * int(decision["a"].sum())  # noqa: E731
    with pytest.raises(BudgetError, match="the nearest below it is 200; 100 to 400 can be"):
        to_cost(sites, some_scores(sites), cost, 250)
    assert to_cost(sites, some_scores(sites), cost, 250, tolerance=0.2) == {"a": 2}


def test_few_costs_are_asked_for():
    sites, calls = some_sites([1000] * 10), []

    def cost(decision):
        calls.append(1)
        return sum(int(keep.sum()) for keep in decision.values())

    assert sum(to_cost(sites, some_scores(sites), cost, 4321).values()) == 4321
    assert len(calls) < 40
