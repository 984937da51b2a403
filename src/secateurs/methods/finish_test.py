import pytest
import torch
from torch import nn

from secateurs.core.errors import UnknownNameError
from secateurs.core.mask import Mask
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.methods.finish import finish
from secateurs.methods.task import Task
from secateurs.models.digits import DigitsCNN
from secateurs.runs.recipe import Cut


def inputs(n=3):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(32, 1, 8, 8, generator=generator), None) for _ in range(n)]


def cut_half(repair, said):
    torch.manual_seed(0)
    model = DigitsCNN(width=8).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = inputs()[0][0]
    graph = trace(model, x)
    mask = Mask({})
    for site in channels(graph).values():
        mask &= Mask(site.scatter(torch.arange(site.units) % 2 == 0))
    task = Task(model, x, batches=inputs, repair=repair, say=said.append)
    small = finish(task, model, mask, graph).model
    with torch.no_grad():
        return float((small(x) - model(x)).square().mean() / model(x).var())


def test_each_repair_brings_the_output_nearer_than_the_one_before():
    said = []
    none, fitted = cut_half("none", []), cut_half("least-squares", said)
    assert fitted < none / 4
    assert any(line.startswith("fitted block1.conv1.0: error ") for line in said)


def test_means_of_what_was_removed_are_folded_by_default():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight[2:4] = 0
        model[0].bias[2:4] = 1
    x = torch.randn(16, 4)
    graph = trace(model, x)
    (site,) = channels(graph).values()
    keep = torch.ones(8, dtype=torch.bool)
    keep[2:4] = False
    task = Task(model, x, batches=lambda: [(x, None)])
    small = finish(task, model, Mask(site.scatter(keep)), graph).model
    torch.testing.assert_close(small(x), model(x))


@pytest.mark.parametrize(
    "make", [lambda w: Task(nn.ReLU(), None, repair=w), lambda w: Cut(repair=w)]
)
def test_an_unknown_repair_lists_the_known(make):
    with pytest.raises(UnknownNameError, match="unknown repair 'pray'; use one of none, bn, least"):
        make("pray")
