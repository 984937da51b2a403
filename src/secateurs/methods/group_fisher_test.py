import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError, UnknownNameError
from secateurs.measure.compute import macs
from secateurs.methods.channels import read, removable
from secateurs.methods.group_fisher import fisher, group_fisher, macs_per_unit, singles
from secateurs.methods.task import Target, Task


class Gated(nn.Module):
    """Two layers read one stream; a mask multiplies what both of them read."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.a, self.b = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 3)
        self.gate = None

    def forward(self, x):
        h = F.relu(self.first(x))
        h = h if self.gate is None else h * self.gate.view(1, -1, 1, 1)
        return (self.a(h) + self.b(h).tanh()).mean(dim=(2, 3))


def samples():
    x = torch.randn(5, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    return [(x, torch.arange(5) % 3)]


def test_it_is_the_squared_gradient_of_a_common_mask_summed_over_samples():
    torch.manual_seed(0)
    model = Gated()
    place = removable(model, samples()[0][0][:1])
    found = fisher(model, read(place.sites, model), singles(samples()))
    model.gate = torch.ones(4, requires_grad=True)
    expected = torch.zeros(4)
    for x, y in singles(samples()):
        (felt,) = torch.autograd.grad(F.cross_entropy(model(x), y), model.gate)
        expected += felt.square()
    torch.testing.assert_close(found["first.weight:0"].float(), expected)


def test_the_macs_of_a_unit_are_those_that_leave_with_it():
    torch.manual_seed(0)
    model, x = Gated(), samples()[0][0][:1]
    place = removable(model, x)
    three = Gated()
    three.first, three.a, three.b = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    assert macs_per_unit(place)["first.weight:0"] == macs(model, x) - macs(three, x)


def test_single_samples_are_cut_from_batches():
    cut = list(singles(samples()))
    assert [tuple(x.shape) for x, _ in cut] == [(1, 1, 7, 7)] * 5
    assert [int(y) for _, y in cut] == [0, 1, 2, 0, 1]


def test_what_is_missing_is_said():
    task = Task(Gated(), samples()[0][0][:1])
    with pytest.raises(EvidenceError, match="group Fisher measures gradients on data"):
        group_fisher(task, Target())
    with pytest.raises(UnknownNameError, match="unknown per 'time'; use one of macs, nothing"):
        group_fisher(task, Target(), per="time")
