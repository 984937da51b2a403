import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError, UnknownNameError
from secateurs.granularity.coupled import isomorphic as alike
from secateurs.methods.channels import among_alike, removable, share
from secateurs.methods.group_taylor import group_taylor
from secateurs.methods.isomorphic import isomorphic
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))


def batches():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return [(x, (x[:, 0] > 0).long())]


@pytest.mark.parametrize("form", ["weights", "gate"])
def test_the_group_is_everything_that_leaves_and_the_least_felt_leave(form):
    model = net()
    task = Task(model, batches()[0][0][:1], batches=batches, repair="none")
    kept = group_taylor(task, Target(), form=form)
    x, y = batches()[0]
    F.cross_entropy(model(x), y).backward()
    felt = [p.detach() * p.grad for p in (model[0].weight, model[0].bias, model[2].weight)]
    rows = torch.cat([felt[0], felt[1][:, None], felt[2].T], dim=1)
    scores = rows.abs().sum(1) if form == "weights" else rows.sum(1).square()
    best = scores.topk(2).indices.sort().values
    assert torch.equal(kept.model[0].weight, model[0].weight[best])
    assert torch.equal(kept.model[2].weight, model[2].weight[:, best])


def test_every_topology_keeps_the_same_fraction_whatever_its_scale():
    torch.manual_seed(0)
    model, x = DigitsCNN(width=8), torch.zeros(1, 1, 8, 8)
    place = removable(model, x)
    scores = {
        name: (i + 1) ** 8 * (1 + torch.rand(site.units))
        for i, (name, site) in enumerate(place.sites.items())
    }
    quota = share(place, scores, Target("density", 0.5), "isomorphic")
    for names in alike(place.sites).values():
        units = sum(place.sites[name].units for name in names)
        assert abs(sum(quota[name] for name in names) - units / 2) <= 1
    ranks = among_alike(place.sites, scores, "none")
    for names in alike(place.sites).values():
        assert torch.cat([ranks[name] for name in names]).max() == 1
    assert len(alike(place.sites)) > 1


def test_isomorphic_pruning_is_group_taylor_ranked_so():
    torch.manual_seed(0)
    model = DigitsCNN(classes=2, width=8).eval()
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    task = Task(model, x[:1], batches=lambda: [(x, (x.mean((1, 2, 3)) > 0).long())])
    one = isomorphic(task, Target("macs", 0.5)).model
    other = group_taylor(task, Target("macs", 0.5), ranking="isomorphic").model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_is_missing_is_said():
    task = Task(net(), torch.zeros(1, 3))
    with pytest.raises(EvidenceError, match="group Taylor measures gradients on data"):
        group_taylor(task, Target())
    with pytest.raises(UnknownNameError, match="unknown form 'sum'; use one of weights, gate"):
        group_taylor(task, Target(), form="sum")
