import pytest
import torch

from secateurs.core.errors import PruneError
from secateurs.realise.coding.container import decode, encode
from secateurs.realise.quantise import as_shared, levels, quantise, rate_distortion, rates


def sparse(rows=40, columns=60, density=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight * (torch.rand(rows, columns, generator=generator) < density)


def error(weight, quantised):
    return float((weight - quantised.dense()).square().sum())


def test_levels_are_even_and_the_largest_weight_is_one():
    found = quantise(torch.tensor([[-3.0, 0.4, 0.6, 3.0]]), 3)
    assert found.step == 1
    assert found.level.tolist() == [[-3, 0, 1, 3]]


def test_rows_may_have_steps_of_their_own():
    found = quantise(torch.tensor([[1.0, 0.5], [0.0, 0.0], [100.0, -50.0]]), 2, per_row=True)
    assert found.step.tolist() == [1, 1, 100]
    assert found.level.tolist() == [[1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per_row", [False, True])
def test_no_weight_is_further_off_than_half_a_step(bits, per_row):
    weight = sparse()
    found = quantise(weight, bits, per_row=per_row)
    assert int(found.level.abs().max()) == 2 ** (bits - 1) - 1
    off = (weight - found.dense()).abs()
    assert (off <= found.step.reshape(-1, 1) * 0.500001).all()
    assert not found.dense()[weight == 0].any()


def test_rows_of_their_own_are_never_worse():
    weight = sparse() * torch.logspace(-2, 2, 40)[:, None]
    assert error(weight, quantise(weight, 4, per_row=True)) < 0.2 * error(
        weight, quantise(weight, 4)
    )


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)])
def test_any_shape_is_quantised(shape):
    weight = torch.ones(shape)
    assert torch.equal(quantise(weight, 4).dense(), weight)
    assert torch.equal(rate_distortion(weight, torch.tensor(1.0), 1e-9).dense(), weight)


def test_a_price_of_nothing_rounds_to_nearest():
    weight, step = sparse(), torch.tensor(0.3)
    assert torch.equal(rate_distortion(weight, step, 0).level, levels(weight, step).level)


def test_a_higher_price_gives_a_smaller_file_and_a_larger_error():
    weight, step = sparse(), torch.tensor(0.15)
    made = [rate_distortion(weight, step, price) for price in (0, 0.001, 0.01, 0.1)]
    sizes = [len(encode({"w": m})) for m in made]
    errors = [error(weight, m) for m in made]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_fine_levels_that_are_worth_it_beat_rounding_to_coarse_ones():
    """At no more bytes the error is smaller: what the trade is for."""
    weight = sparse(200, 200, density=0.5)
    coarse = levels(weight, torch.tensor(1.0))
    finer = rate_distortion(weight, torch.tensor(0.9), 0.08)
    assert len(encode({"w": finer})) < len(encode({"w": coarse}))
    assert error(weight, finer) < error(weight, coarse)


def test_zeros_stay_zeros_and_signs_stay_signs():
    weight = sparse()
    found = rate_distortion(weight, torch.tensor(0.3), 0.02)
    assert not found.level[weight == 0].any()
    assert (found.level * weight >= 0).all()


def test_what_stands_alone_in_its_row_and_column_goes_first():
    weight = torch.zeros(30, 30)
    weight[:5, :5] = 1.0
    weight[20, 20] = 1.0
    bits = rates(levels(weight, torch.tensor(1.0)).level)
    assert bits.one[20, 20] > bits.one[0, 0] + 2.5
    found = rate_distortion(weight, torch.tensor(1.0), 0.3)
    assert found.level[20, 20] == 0
    assert found.level[:5, :5].all()


def test_important_weights_keep_their_value():
    weight = sparse()
    importance = torch.ones(40, 60)
    importance[:, :30] = 1e6
    found = rate_distortion(weight, torch.tensor(0.25), 0.05, importance=importance).level
    nearest = levels(weight, torch.tensor(0.25)).level
    assert torch.equal(found[:, :30], nearest[:, :30])
    assert found[:, 30:].count_nonzero() < 0.8 * nearest[:, 30:].count_nonzero()


def test_bits_add_up_to_about_the_size_of_the_file():
    level = levels(sparse(200, 200, 0.05), torch.tensor(0.3)).level
    estimate = float(rates(level).of(level).sum()) / 8
    quantised = rate_distortion(level * 0.3, torch.tensor(0.3), 0)
    assert 0.8 < estimate / len(encode({"w": quantised})) < 1.2


def test_levels_become_a_codebook_that_holds_the_same():
    found = rate_distortion(sparse(), torch.tensor(0.3), 0.01)
    table = as_shared(found)
    assert torch.equal(table.dense(), found.dense())
    assert torch.equal(table.mask, found.mask)
    assert torch.equal(decode(encode({"w": table})).state()["w"], found.dense())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: quantise(w, 1), "cannot quantise to 1 bits; use 2 to 16"),
        (lambda w: quantise(w / 0, 4), "cannot quantise weights that are NaN or infinite"),
        (lambda w: levels(w, torch.tensor(0.0)), "a step is positive and finite, not 0"),
        (lambda w: levels(w, torch.tensor(1e-30)), "a step of 1e-30 makes 1e.30 levels; use a"),
        (lambda w: rate_distortion(w, torch.tensor(1.0), -1), "a price is 0 or more, not -1"),
        (lambda w: as_shared(quantise(w, 4, per_row=True)), "a codebook is one for the tensor"),
    ],
)
def test_what_cannot_be_done_is_said(call, message):
    with pytest.raises(PruneError, match=message):
        call(torch.ones(2, 2))
