import pytest
import torch
from torch import nn

from secateurs.core.cut import score
from secateurs.core.errors import EvidenceError
from secateurs.criteria.scale import scale
from secateurs.evidence.scales import scales
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.models.digits import DigitsCNN


def test_only_batch_norms_have_scales():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
    assert list(scales(model)) == ["1.weight"]
    assert list(scales(model[1])) == ["weight"]
    assert scales(nn.Sequential(nn.BatchNorm2d(3, affine=False))) == {}


def test_a_channel_of_a_residual_stream_scores_the_mean_of_its_scales():
    model = DigitsCNN(width=4)
    with torch.no_grad():
        model.stem[1].weight.copy_(torch.tensor([1.0, -2.0, 3.0, 0.0]))
        model.block1.conv2[1].weight.copy_(torch.tensor([5.0, 4.0, 1.0, 0.0]))
    sites = channels(trace(model, torch.zeros(1, 1, 8, 8)))
    found = score(sites, scale, scale=scales(model))
    assert found["stem.0.weight:0"].tolist() == [3, 3, 2, 0]
    assert found["block1.conv1.0.weight:0"].tolist() == [1, 1, 1, 1]


def test_channels_without_a_batch_norm_are_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    sites = channels(trace(model, torch.zeros(1, 2)))
    with pytest.raises(EvidenceError, match=r"nothing was measured about the units of '0.weight"):
        score(sites, scale, scale=scales(model))
    with pytest.raises(EvidenceError, match=r"pass scale=evidence.scales\(model\)"):
        score(sites, scale, weight=weights(model))
