import pytest
import torch

from secateurs.core.errors import ShapeError
from secateurs.granularity.table import GRANULARITIES
from secateurs.testing.laws import (
    gathering_what_was_scattered_returns_the_decision,
    units_share_no_position,
)
from secateurs.testing.nets import TOYS, toy

UNFIT = {
    ("block4x4", "depthwise"),
    ("pool4", "depthwise"),
    ("strided2", "linear"),
    ("strided2", "tied"),
    ("strided2", "attention"),
    ("strided2", "recurrent"),
}
CASES = [(grain, net) for grain in GRANULARITIES for net in TOYS]
FIT = [case for case in CASES if case not in UNFIT]


@pytest.mark.parametrize(("grain", "net"), FIT)
def test_gathering_what_was_scattered_returns_the_decision(grain, net):
    for site in GRANULARITIES[grain](toy(net)[0]).values():
        gathering_what_was_scattered_returns_the_decision(site)


@pytest.mark.parametrize(("grain", "net"), FIT)
def test_units_share_no_position(grain, net):
    for site in GRANULARITIES[grain](toy(net)[0]).values():
        if site.units <= 512:
            units_share_no_position(site)


@pytest.mark.parametrize(("grain", "net"), FIT)
def test_rows_hold_every_weight_once(grain, net):
    model, _ = toy(net)
    for name, site in GRANULARITIES[grain](model).items():
        weight = model.get_parameter(name).detach()
        rows = site.gather({name: weight})
        assert rows.shape[0] == site.units
        padded = torch.zeros(rows.numel() - weight.numel())
        expected = torch.cat([weight.flatten(), padded]).sort().values
        assert torch.equal(rows.flatten().sort().values, expected)


@pytest.mark.parametrize(("grain", "net"), FIT)
def test_the_weights_of_a_dropped_unit_are_those_in_its_row(grain, net):
    model, _ = toy(net)
    for name, site in GRANULARITIES[grain](model).items():
        numbers = torch.arange(1, site.scatter(torch.ones(site.units).bool())[name].numel() + 1)
        numbers = numbers.view(model.get_parameter(name).shape)
        for unit in {0, site.units // 2, site.units - 1}:
            mask = site.scatter(torch.arange(site.units) != unit)[name]
            row = site.gather({name: numbers})[unit]
            assert sorted(numbers[~mask].tolist()) == sorted(row[row > 0].tolist())


@pytest.mark.parametrize(("grain", "net"), sorted(UNFIT))
def test_a_layer_the_grain_does_not_fit_is_named_with_the_remedy(grain, net):
    model, _ = toy(net)
    with pytest.raises(ShapeError, match=r"do(es)? not fit '.*weight.*exclude=\['"):
        GRANULARITIES[grain](model)


def test_the_toys_have_every_kind_of_weight():
    sites = {net: GRANULARITIES["element"](toy(net)[0]) for net in TOYS}
    assert list(sites["tied"]) == ["mix.weight", "embed.weight"]
    assert list(sites["attention"]) == ["attend.in_proj_weight", "attend.out_proj.weight"]
    assert list(sites["recurrent"]) == ["weight_ih_l0", "weight_hh_l0"]
