import pytest
import torch
from torch import nn

from secateurs.core.cut import select
from secateurs.core.errors import StructureError
from secateurs.granularity.grains import fibres
from secateurs.realise.fibres import Layer, thin
from secateurs.realise.lowered import Lowered
from secateurs.realise.masked import apply_mask


def net(**options):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, **options), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, **options)
    ).double()


def cut(model, density=0.3):
    sites = fibres(model)
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(s.units, generator=generator) for n, s in sites.items()}
    return select(sites, scores, {n: round(density * s.units) for n, s in sites.items()})


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"bias": False}])
def test_thin_layers_compute_what_the_masked_ones_do(options):
    model, x = net(**options), torch.randn(2, 4, 9, 8, dtype=torch.float64)
    mask = cut(model)
    before = model[0].weight.detach().clone()
    result = thin(model, mask, x, only_faster=False, rounds=1)
    assert isinstance(result.model[0], Lowered)
    assert isinstance(result.model[2], Lowered)
    torch.testing.assert_close(result.model(x), apply_mask(model, mask)(x))
    assert torch.equal(model[0].weight, before)
    assert [layer.density for layer in result.layers.values()] == [
        pytest.approx(float(keep.double().mean())) for keep in mask.values()
    ]


def test_a_layer_stays_dense_unless_thin_is_faster(monkeypatch):
    from secateurs.measure.latency import Latency
    from secateurs.realise import fibres as module

    def clock(models, x, **_):
        slow = len(seen)
        seen.append(models)
        times = {"contiguous": 2.0, "channels_last": 1.0, "thin": 0.5 if slow else 1.5}
        return {name: Latency(times[name], times[name], times[name], 1, 1, 1) for name in models}

    seen = []
    monkeypatch.setattr(module, "latency", clock)
    model, x = net(), torch.randn(2, 4, 9, 8, dtype=torch.float64)
    result = thin(model, cut(model), x)
    first, second = result.layers.values()
    assert (first.thin, first.layout, first.speedup) == (
        False,
        "channels_last",
        pytest.approx(2 / 3),
    )
    assert (second.thin, second.speedup) == (True, 2)
    assert isinstance(result.model[0], nn.Conv2d)
    assert isinstance(result.model[2], Lowered)
    mask = cut(model)
    assert not result.model[0].weight[~mask["0.weight"]].any()


def test_masks_that_free_no_column_leave_the_layer_alone():
    model, x = net(), torch.randn(2, 4, 9, 8, dtype=torch.float64)
    keep = torch.rand(8, 4, 3, 3) < 0.5
    result = thin(model, {"0.weight": keep}, x, only_faster=False, rounds=1)
    assert result.layers == {}
    torch.testing.assert_close(result.model(x), apply_mask(model, {"0.weight": keep})(x))


def test_a_model_that_is_one_convolution_becomes_one_layer():
    conv = nn.Conv1d(3, 4, 3)
    keep = torch.ones(4, 3, 3, dtype=torch.bool)
    keep[:, 1] = False
    result = thin(conv, {"weight": keep}, torch.randn(2, 3, 7), only_faster=False, rounds=1)
    assert isinstance(result.model, Lowered)
    assert isinstance(result.layers["weight"], Layer)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return x


def test_a_layer_that_the_example_does_not_reach_is_named():
    keep = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    with pytest.raises(StructureError, match=r"the example does not reach 'conv.weight'"):
        thin(Unused(), {"conv.weight": keep}, torch.randn(1, 1, 5, 5))
