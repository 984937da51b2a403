import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core import rank
from secateurs.core.rank import kth_largest

N = rank._SMALL + 1001


def cases():
    normal = torch.randn(N, generator=torch.Generator().manual_seed(0))
    spike = torch.zeros(N)
    spike[N // 2 :: 97] = 1.0
    return {
        "random": normal,
        "sorted": normal.sort().values,
        "half zero": normal.clamp_min(0),
        "all equal": torch.ones(N),
        "rare": spike,
        "hidden from an even sample": torch.arange(N) % (N // rank._SAMPLE),
        "half precision": normal.bfloat16(),
    }


CASES = cases()


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.5, 0.9, 1.0])
def test_many_values_agree_with_sorting(values, share):
    k = max(1, round(share * N))
    expected = values.sort(descending=True).values[k - 1]
    assert kth_largest([values[:1000], values[1000:700_000], values[700_000:]], k) == expected


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_few_values_agree_with_sorting(values, data):
    k = data.draw(st.integers(1, len(values)))
    cut = data.draw(st.integers(0, len(values)))
    parts = [torch.tensor(values[:cut]), torch.tensor(values[cut:])]
    assert kth_largest(parts, k) == sorted(values, reverse=True)[k - 1]


def test_parts_may_have_any_shape():
    assert kth_largest([torch.tensor([[1.0, 5.0]]), torch.tensor(3.0)], 2) == 3.0
