import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.realise.activations import Grid, calibrate, grid, quantised


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


def batches(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(64, 6, generator=generator), None) for _ in range(n)]


GRIDS = [(-1.0, 3.0, 8), (0.0, 5.0, 8), (-2.0, 0.0, 4), (0.5, 1.0, 3), (0.0, 0.0, 8)]


@pytest.mark.parametrize(("low", "high", "bits"), GRIDS)
def test_values_of_the_grid_stay_and_zero_is_one_of_them(low, high, bits):
    to = grid(low, high, bits)
    values = (torch.arange(1 << bits) - to.zero) * to.step
    assert torch.equal(to(values), values)
    assert (values == 0).any()


@pytest.mark.parametrize(("low", "high", "bits"), GRIDS)
def test_the_error_is_at_most_half_a_step_inside_and_beyond_it_clamps(low, high, bits):
    to = grid(low, high, bits)
    first, last = -to.zero * to.step, ((1 << bits) - 1 - to.zero) * to.step
    assert first == pytest.approx(min(low, 0), abs=to.step / 2)
    inside = torch.linspace(first, last, 1001)
    assert (to(inside) - inside).abs().max() <= to.step * 0.5001
    beyond = torch.tensor([first - 100.0, last + 100.0])
    assert to(beyond).tolist() == pytest.approx([first, last], rel=1e-6)


def test_a_grid_by_hand():
    to = Grid(0.5, zero=1, bits=2)
    assert to(torch.tensor([-9.0, -0.3, 0.2, 0.3, 0.9, 9.0])).tolist() == [-0.5, -0.5, 0, 0.5, 1, 1]


def test_ranges_hold_what_the_layers_saw():
    model, some = net(), batches()
    grids = calibrate(model, some, by="minmax")
    assert list(grids) == ["0", "2"]
    x = torch.cat([b[0] for b in some])
    inner = model[1](model[0](x))
    assert grids["0"] == grid(float(x.min()), float(x.max()))
    assert grids["2"].step == pytest.approx(float(inner.detach().max()) / 255)
    assert grids["2"].zero == 0


def test_a_percentile_leaves_out_outliers_on_either_side():
    x = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([1000.0, -500.0])])
    model = nn.Sequential(nn.Linear(1, 1))
    wide = calibrate(model, [x[:, None]], by="minmax")["0"]
    narrow = calibrate(model, [x[:, None]], by="percentile", percentile=99.0)["0"]
    assert wide.step == pytest.approx(1500 / 255)
    assert narrow.step == pytest.approx(2 / 255, rel=0.05)


def test_the_range_of_least_error_errs_least():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5000, 1, generator=generator) ** 3
    model = nn.Sequential(nn.Linear(1, 1))

    def error(by):
        to = calibrate(model, [x], by=by, bits=4)["0"]
        return float((to(x) - x).square().mean())

    assert error("mse") < 0.75 * error("minmax")
    assert error("mse") < 1.05 * error("percentile")


@pytest.mark.parametrize("by", ["minmax", "percentile", "mse"])
def test_eight_bits_change_the_output_little_and_two_bits_much(by):
    model, x = net(), batches(1, seed=9)[0][0]
    exact = model(x).detach()

    def off(bits):
        with quantised(model, calibrate(model, batches(), by=by, bits=bits)) as rounded:
            return float((rounded(x).detach() - exact).square().mean() / exact.square().mean())

    assert 0 < off(8) < 1e-3 < off(2)
    assert torch.equal(model(x), exact)


def test_calibration_leaves_the_model_as_it_was():
    model = net().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    calibrate(model, batches())
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_calibration_is_refused_with_a_reason():
    with pytest.raises(UnknownNameError, match="unknown range 'max'; use one of minmax"):
        calibrate(net(), batches(), by="max")
    with pytest.raises(PruneError, match="at least one"):
        calibrate(net(), [])
    with pytest.raises(PruneError, match="a percentile is 50 to 100, not 9"):
        calibrate(net(), batches(), percentile=9)
    with pytest.raises(PruneError, match="to 99 bits; use 2 to 16"):
        calibrate(net(), batches(), bits=99)
    with pytest.raises(PruneError, match=r"activations run from 0\.0 to inf"):
        grid(0.0, float("inf"))
