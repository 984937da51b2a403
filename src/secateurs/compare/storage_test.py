import pytest
import torch
from torch import nn

from secateurs.compare.storage import eight_bits, from_grains, grains, ratio, stored, to_fields
from secateurs.core.errors import ShapeError
from secateurs.granularity.strided import Strided
from secateurs.granularity.table import GRANULARITIES
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Uniform

SIZES = {"element": 1, "row": 3, "kernel": 9, "filter": 8 * 9}


def cut(grain, density, seed=0):
    """A convolution's weight whose dropped grains are zero."""
    conv = nn.Conv2d(8, 32, 3)
    (site,) = GRANULARITIES[grain](conv).values()
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(conv.weight.shape, generator=generator)
    keep = torch.rand(site.units, generator=generator).argsort().argsort()
    keep = keep < round(density * site.units)
    return site, weight * site.scatter(keep)["weight"], keep


@pytest.mark.parametrize("grain", SIZES)
@pytest.mark.parametrize("density", [0.05, 0.25, 0.5, 1.0])
def test_the_format_takes_what_the_formula_says_within_its_fillers(grain, density):
    site, weight, keep = cut(grain, density)
    found = stored(site, weight)
    fields = to_fields(keep.nonzero().squeeze(1).numpy())
    fillers = fields.size - int(keep.sum())
    assert found.formula == pytest.approx(int(keep.sum()) * (SIZES[grain] + 0.5))
    assert found.formula + fillers / 2 <= found.grains < found.formula + fillers / 2 + 1
    assert fillers <= (site.units - int(keep.sum())) / 15


@pytest.mark.parametrize("grain", SIZES)
def test_the_format_decodes_to_what_was_stored(grain):
    site, weight, keep = cut(grain, 0.1)
    _, level = eight_bits(weight)
    rows = site.gather({"weight": level})
    fields = to_fields(keep.nonzero().squeeze(1).numpy())
    back = from_grains(grains(rows), fields.size, site.units, SIZES[grain])
    assert torch.equal(back.int(), rows)


def test_single_elements_take_what_the_container_takes_with_the_same_codecs():
    site, weight, _ = cut("element", 0.3)
    step, level = eight_bits(weight)
    blob = encode({"w": Uniform(step, level)}, indices=["gaps4"], values=["packed"])
    assert stored(site, weight).grains == pytest.approx(len(blob), abs=64)


def test_the_container_is_smaller_than_the_format():
    site, weight, _ = cut("element", 0.5)
    found = stored(site, weight)
    assert found.container < found.grains


def test_a_long_gap_costs_an_index_and_no_weights():
    rows = torch.zeros(64, 100, dtype=torch.int32)
    rows[[0, 63]] = 7
    assert len(grains(rows)) == 200 + 3
    assert torch.equal(from_grains(grains(rows), 6, 64, 100).int(), rows)


def test_layers_add_up():
    site, weight, _ = cut("row", 0.5)
    one = stored(site, weight)
    two = one + one
    assert (two.dense, two.grains, two.formula) == (2 * one.dense, 2 * one.grains, 2 * one.formula)
    assert two.dense == 2 * weight.numel()


def test_pointwise_kernels_always_pay_for_every_index():
    conv = nn.Conv2d(4, 4, 1)
    found = {g: stored(GRANULARITIES[g](conv)["weight"], conv.weight) for g in SIZES}
    assert found["element"] == found["row"] == found["kernel"]
    assert found["element"].formula == 1.5 * 16
    assert ratio(0.25, 1) == 0.375


def test_a_kept_weight_never_becomes_zero():
    step, level = eight_bits(torch.tensor([1.0, 1e-6, -1e-6, 0.0, -1.0]))
    assert level.tolist() == [127, 1, -1, 0, -127]
    assert float(step) == pytest.approx(1 / 127)
    assert eight_bits(torch.zeros(2))[1].tolist() == [0, 0]


def test_units_of_different_sizes_are_refused():
    site = Strided("w", (1, 1, 3, 3), 2)
    with pytest.raises(ShapeError, match="units of 'w' differ in size; store them by elements"):
        stored(site, torch.ones(1, 1, 3, 3))
