import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.cut import decide, keep_top, scatter, score, select
from secateurs.core.errors import BudgetError, EvidenceError, PruneError
from secateurs.core.site import Site


def test_ties_keep_the_lower_index():
    assert keep_top(torch.tensor([1.0, 1, 0, 1]), 2).tolist() == [True, True, False, False]


def test_pools_are_ranked_apart():
    marked = keep_top(torch.tensor([9.0, 8, 7, 1, 2, 3]), 2, among=3)
    assert marked.tolist() == [True, True, False, False, True, True]


@given(st.lists(st.integers(-3, 3), max_size=40), st.data())
def test_one_pool_agrees_with_a_stable_sort(values, data):
    keep = data.draw(st.integers(0, len(values)))
    best = sorted(range(len(values)), key=lambda i: (-values[i], i))[:keep]
    marked = keep_top(torch.tensor(values, dtype=torch.float64), keep)
    assert marked.nonzero().flatten().tolist() == sorted(best)


@pytest.mark.parametrize(("keep", "among"), [(-1, None), (5, None), (1, 3), (3, 2)])
def test_an_impossible_count_is_refused_with_the_range(keep, among):
    with pytest.raises(BudgetError, match=r"keep 0 to|use a divisor"):
        keep_top(torch.zeros(4), keep, among)


def test_an_infinite_score_names_its_site():
    weight = {"w": torch.tensor([1.0, 2, 3, float("nan")])}
    with pytest.raises(PruneError, match="1 of 4 scores of 'w' are NaN or infinite"):
        score({"w": Elements("w", 4)}, lambda e: e.weight.sum(dim=1), weight=weight)


class Elements:
    """A site over one parameter, its simplest form."""

    def __init__(self, name, units, among=None):
        self.name, self.units, self.among, self.params = name, units, among, (name,)

    def gather(self, tensors):
        return tensors[self.name].view(-1, 1)

    def scatter(self, keep):
        return {self.name: keep.clone()}


def magnitude(e):
    return e.weight.abs().sum(dim=1)


SITES = {"a": Elements("a", 4, among=2), "b": Elements("b", 3)}
WEIGHTS = {"a": torch.tensor([1.0, -2, 4, 3]), "b": torch.tensor([5.0, 7, -6])}


def test_a_site_is_what_the_protocol_says():
    assert isinstance(SITES["a"], Site)


def test_every_site_is_scored_by_the_same_formula():
    scores = score(SITES, magnitude, weight=WEIGHTS)
    assert {name: s.tolist() for name, s in scores.items()} == {"a": [1, 2, 4, 3], "b": [5, 7, 6]}


def test_an_unmeasured_kind_names_the_site():
    with pytest.raises(EvidenceError, match="site 'a': this criterion needs 'weight'"):
        score(SITES, magnitude, gradient=WEIGHTS)


def test_a_decision_keeps_the_quota_in_every_pool():
    decision = decide(SITES, score(SITES, magnitude, weight=WEIGHTS), {"a": 2, "b": 1})
    assert decision["a"].tolist() == [False, True, True, False]
    assert decision["b"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (
            {"a": 3, "b": 1},
            "cannot keep 3 units of 'a' evenly in 2 pools of 2; use",
        ),
        ({"a": 2, "b": 4}, "cannot keep 4 of 3 units of 'b'; keep 0 to 3"),
        ({"a": -2, "b": 1}, "cannot keep -2 of 4 units of 'a'; keep 0 to 4"),
        ({"a": 2}, "no quota or no scores for b; pass both for every site"),
    ],
)
def test_a_quota_that_cannot_be_met_names_the_site(quota, message):
    with pytest.raises(BudgetError, match=message):
        decide(SITES, score(SITES, magnitude, weight=WEIGHTS), quota)


def test_select_returns_the_mask_of_what_stays():
    mask = select(SITES, score(SITES, magnitude, weight=WEIGHTS), {"a": 4, "b": 2})
    assert mask["a"].tolist() == [True] * 4
    assert mask["b"].tolist() == [False, True, True]


def test_sites_over_one_parameter_meet_by_and():
    sites = {"x": Elements("w", 3), "y": Elements("w", 3)}
    mask = scatter(
        sites, {"x": torch.tensor([True, True, False]), "y": torch.tensor([False, True, True])}
    )
    assert mask["w"].tolist() == [False, True, False]


def test_the_cut_agrees_with_sorting_where_it_is_too_large_to_sort():
    scores = (torch.arange(3 << 19) % 1000).float()
    marked = keep_top(scores, 12_345)
    order = scores.argsort(descending=True, stable=True)[:12_345]
    assert torch.equal(marked.nonzero().squeeze(1), order.sort().values)


def test_no_units_are_no_marks():
    assert keep_top(torch.zeros(0), 0).tolist() == []
