import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.cut import keep_top, score
from secateurs.core.errors import BudgetError, PruneError


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
    class Elements:
        units, among, params = 4, None, ("w",)

        def gather(self, tensors):
            return tensors["w"].view(4, 1)

        def scatter(self, keep):
            return {"w": keep}

    weight = {"w": torch.tensor([1.0, 2, 3, float("nan")])}
    with pytest.raises(PruneError, match="1 of 4 scores of 'w' are NaN or infinite"):
        score({"w": Elements()}, lambda e: e.weight.sum(dim=1), weight=weight)
