import copy

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError
from secateurs.evidence.activations import activations
from secateurs.evidence.batches import evaluating
from secateurs.evidence.curvature import curvature
from secateurs.evidence.gradients import gradients


def square(output, *labels):
    return output.square().mean()


MEASURES = {
    "gradients": lambda model, batches: gradients(model, batches, square),
    "activations": activations,
    "curvature": lambda model, batches: curvature(
        model, batches, square, generator=Generator().manual_seed(0)
    ),
}


def net():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2)
    )


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_model_is_left_as_it_was_found(measure):
    model = net().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    square(model(torch.randn(2, 2, 4, 4))).backward()
    before = copy.deepcopy(model)
    slopes = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    measure(model, [torch.randn(4, 2, 4, 4), (torch.randn(3, 2, 4, 4), torch.ones(3))])
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new), name
        assert old.requires_grad == new.requires_grad, name
    for old, new in zip(slopes, model.parameters(), strict=True):
        assert (old is None) == (new.grad is None)
        assert old is None or torch.equal(old, new.grad)
    for old, new in zip(before.buffers(), model.buffers(), strict=True):
        assert torch.equal(old, new)
    assert all(not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_model_is_left_as_it_was_found_when_it_fails(measure):
    model = net().train()
    with pytest.raises(RuntimeError):
        measure(model, [torch.randn(1, 5, 4, 4)])
    assert all(m.training and not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_measuring_twice_gives_the_same(measure):
    model, batches = net(), [torch.randn(4, 2, 4, 4)]
    torch.testing.assert_close(measure(model, batches), measure(model, batches), rtol=0, atol=0)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_no_batches_is_an_error(measure):
    with pytest.raises(EvidenceError, match="there are no batches to measure on"):
        measure(net(), iter(()))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 1, bias=False)

    def forward(self, x, y=0.0):
        return self.a(x) + y


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_inputs_may_be_a_tensor_a_mapping_or_a_sequence(measure):
    model, x, y = TwoInputs(), torch.ones(1, 2), torch.zeros(1, 1)
    alone = measure(model, [x])
    for batch in ((x,), [x, "label"], {"x": x, "y": y}, ((x, y), "label"), ({"x": x}, "label")):
        torch.testing.assert_close(measure(model, [batch]), alone)


def test_each_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False]


def test_labels_reach_the_loss():
    model, x = nn.Linear(2, 3), torch.randn(4, 2)
    labels = torch.tensor([0, 1, 2, 0])
    found = gradients(model, [(x, labels)], F.cross_entropy)["gradient"]["weight"]
    F.cross_entropy(model(x), labels).backward()
    torch.testing.assert_close(found, model.weight.grad)
