import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.budget.ranks import Spectrum, least, share_ranks
from secateurs.core.errors import BudgetError


def spectrum(energies, price, whole):
    return Spectrum(torch.tensor(energies).double(), price, whole)


def test_the_cheapest_loss_goes_first():
    layers = {"a": spectrum([8.0, 1.0, 1.0], 1.0, 10.0), "b": spectrum([5.0, 4.0, 1.0], 1.0, 10.0)}
    assert share_ranks(layers, 6.0) == {"a": 3, "b": 3}
    assert share_ranks(layers, 3.0) == {"a": 1, "b": 2}
    assert share_ranks(layers, 7.0, rest=5.0) == {"a": 1, "b": 1}


def test_a_layer_that_would_not_become_cheaper_stays():
    layers = {"a": spectrum([1.0, 1.0], 4.0, 5.0), "b": spectrum([9.0, 0.1], 1.0, 5.0)}
    assert share_ranks(layers, 7.0) == {"a": None, "b": 2}


def test_a_budget_below_one_rank_a_layer_is_refused_with_the_range():
    layers = {"a": spectrum([1.0, 1.0], 4.0, 9.0)}
    with pytest.raises(BudgetError, match=r"cannot reach a cost of 3 .* 4 to 9 can be reached"):
        share_ranks(layers, 3.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_a_budget_is_met(count, share, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = {
        str(i): Spectrum(
            torch.rand(8, generator=generator).double().sort(descending=True).values,
            float(1 + torch.rand(1, generator=generator)),
            9.0,
        )
        for i in range(count)
    }
    low, high = least(layers), sum(x.whole for x in layers.values())
    budget = low + share * (high - low)
    found = share_ranks(layers, budget)
    spent = sum(x.whole if (r := found[n]) is None else r * x.price for n, x in layers.items())
    assert spent <= budget + 1e-9
    assert all(r is None or r >= 1 for r in found.values())
