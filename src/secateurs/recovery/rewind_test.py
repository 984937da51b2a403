import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from secateurs.core.errors import ShapeError, StructureError
from secateurs.recovery.rewind import reinitialise_, rewind_, snapshot


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def mask_(model):
    mask = torch.arange(12).view(4, 3) % 2
    parametrize.register_parametrization(model[0], "weight", Masked(mask))
    return mask.bool()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def change_(model):
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1)


def test_rewinding_returns_what_was_there():
    model = net()
    before = snapshot(model)
    change_(model)
    assert not same(snapshot(model), before)
    rewind_(model, before)
    assert same(snapshot(model), before)


def test_a_snapshot_taken_bare_fits_the_masked_model_and_the_mask_holds():
    model = net()
    before = snapshot(model)
    mask = mask_(model)
    assert snapshot(model).keys() == before.keys()
    with torch.no_grad():
        model[0].parametrizations.weight.original.add_(1)
    rewind_(model, before)
    assert torch.equal(model[0].weight, before["0.weight"] * mask)


def test_a_snapshot_of_another_model_is_refused_and_nothing_changes():
    model, other = net(), nn.Sequential(nn.Linear(3, 5))
    before = snapshot(model)
    with pytest.raises(ShapeError, match=r"cannot rewind '0.weight': it is \(5, 3\) in the snap"):
        rewind_(model, snapshot(other))
    assert same(snapshot(model), before)


def test_drawing_anew_depends_on_the_seed_alone():
    a, b, c = net(1), net(2), net(3)
    state = torch.get_rng_state()
    reinitialise_(a, 7), reinitialise_(b, 7), reinitialise_(c, 8)
    assert same(snapshot(a), snapshot(b))
    assert not same(snapshot(a), snapshot(c))
    assert torch.equal(torch.get_rng_state(), state)


def test_drawing_anew_reaches_below_a_mask():
    bare, masked = net(1), net(2)
    mask = mask_(masked)
    reinitialise_(bare, 7), reinitialise_(masked, 7)
    assert torch.equal(masked[0].weight, bare[0].weight * mask)
    assert same(snapshot(bare), snapshot(masked))


def test_attention_can_be_drawn_anew():
    a, b = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2)
    reinitialise_(a, 7), reinitialise_(b, 7)
    assert same(snapshot(a), snapshot(b))


def test_a_parameter_that_cannot_be_drawn_is_named_and_nothing_changes():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    model = nn.Sequential(nn.Linear(2, 2), Own())
    before = snapshot(model)
    with pytest.raises(StructureError, match=r"cannot draw '1.scale' anew: Own has no reset_par"):
        reinitialise_(model, 0)
    assert same(snapshot(model), before)


def test_weight_norm_is_kept_in_a_snapshot_and_refused_for_drawing():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    before = snapshot(model)
    change_(model)
    rewind_(model, before)
    assert same(snapshot(model), before)
    assert len(before) == 3
    with pytest.raises(StructureError, match="its parametrization keeps several tensors; remove"):
        reinitialise_(model, 0)
