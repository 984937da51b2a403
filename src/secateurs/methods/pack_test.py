import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.methods.pack import Packed, pack, skeleton
from secateurs.realise.coding.container import decode


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, 10))
    for p in model.parameters():
        if p.dim() > 1:
            p.data *= p.abs() > 0.6 * p.abs().max()
    return model


def test_by_default_every_bit_comes_back_and_zeros_take_little():
    model = net()
    blob = pack(model, Packed(), {"model": "own"})
    found = decode(blob)
    assert found.recipe == {"model": "own"}
    assert all(torch.equal(found.state()[n], t) for n, t in model.state_dict().items())
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert len(blob) < 0.7 * dense


def test_bits_limit_the_values_of_each_layer_and_zeros_stay():
    model = net()
    state = decode(pack(model, Packed(bits=2))).state()
    for name in ("0.weight", "3.weight"):
        assert state[name][state[name] != 0].unique().numel() <= 4
        assert torch.equal(state[name] != 0, model.state_dict()[name] != 0)


@pytest.mark.parametrize("how", [Packed(bytes=900), Packed(ratio=4.0, biases="float16")])
def test_a_size_is_met(how):
    model = net()
    blob = pack(model, how)
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert len(blob) <= (how.bytes or dense / how.ratio)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (Packed(bits=3, bytes=100), BudgetError, "bits 3 and a size are two budgets; give one"),
        (Packed(ratio=-1.0), BudgetError, "cannot aim at bytes 0, ratio -1; use 1 or more"),
        (Packed(ratio=float("nan")), BudgetError, "cannot aim at bytes 0, ratio nan; use 1 or"),
        (Packed(bytes=50), BudgetError, "cannot pack .* weights into a file of 50 bytes"),
        (
            Packed(code="zip"),
            UnknownNameError,
            "unknown code 'zip'; use one of smallest, slow, paper",
        ),
    ],
)
def test_what_cannot_be_done_is_said(how, error, message):
    with pytest.raises(error, match=message):
        pack(net(), how)


def test_a_state_dict_without_its_class_is_packed_too():
    model = net()
    again = skeleton(model.state_dict())
    assert pack(again, Packed(bits=3)) == pack(model, Packed(bits=3))
