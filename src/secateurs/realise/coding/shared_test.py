import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from secateurs.core.errors import ShapeError
from secateurs.realise.coding.shared import Shared, Uniform, disorder, order


def test_a_codebook_and_an_index_make_a_tensor():
    x = Shared(tensor([0.5, -1.0]), tensor([[0, -1], [1, 0]]))
    assert_close(x.dense(), tensor([[0.5, 0], [-1, 0.5]]), rtol=0, atol=0)
    assert x.mask.tolist() == [[True, False], [True, True]]


def test_a_canonical_codebook_is_sorted_without_the_unused_and_the_twice():
    x = Shared(tensor([3.0, 1.0, 7.0, 1.0, -0.0]), tensor([0, 1, -1, 3, 4]))
    small = x.canonical()
    assert small.codebook.tolist() == [0, 1, 3]
    assert small.index.tolist() == [2, 1, -1, 1, 0]
    assert torch.equal(small.dense().view(torch.int32), x.dense().view(torch.int32))
    assert torch.equal(small.canonical().index, small.index)


def test_levels_and_a_step_make_a_tensor():
    assert Uniform(tensor(0.5), tensor([[2, 0, -1]])).dense().tolist() == [[1, 0, -0.5]]
    rows = Uniform(tensor([0.5, 2.0]), tensor([[2], [3]]))
    assert rows.dense().tolist() == [[1], [6]]
    assert rows.mask.tolist() == [[True], [True]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@settings(deadline=None)
@given(st.lists(st.floats(width=16), min_size=1, max_size=20))
def test_order_sorts_as_the_values_do_and_loses_nothing(dtype, values):
    x = tensor(values, dtype=dtype)
    keys = order(x)
    assert torch.equal(disorder(keys, dtype).view(torch.uint8), x.view(torch.uint8))
    ordered = x[keys.argsort()]
    numbers = ordered[~ordered.isnan()]
    assert (numbers.diff()[numbers.diff() == numbers.diff()] >= 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shared(tensor([[1.0]]), tensor([0])), r"not torch.float32 of shape \(1, 1\)"),
        (lambda: Shared(tensor([1]), tensor([0])), "not torch.int64 of shape"),
        (lambda: Shared(tensor([1.0]), tensor([0.0])), "an index is a whole number, not"),
        (lambda: Shared(tensor([1.0]), tensor([0, 1])), "from 0 to 1, but a codebook of 1"),
        (lambda: Uniform(tensor([1.0, 2.0]), tensor([1])), r"a step of .* for levels of shape"),
        (lambda: Uniform(tensor(1.0), tensor([True])), "a level is a whole number, not"),
        (lambda: Uniform(tensor(1.0), tensor([1 << 40])), "levels run from .* beyond 1073741823"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ShapeError, match=message):
        make()
