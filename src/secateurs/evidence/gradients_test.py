import pytest
import torch
from torch import nn

from secateurs.core.errors import EvidenceError
from secateurs.evidence.gradients import gradients
from secateurs.testing.nets import TOYS, toy


def line(weight):
    """Make y = w x, whose gradient in w is x."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(weight)
    return layer


def total(output, *labels):
    return output.sum()


def test_kinds_by_hand():
    found = gradients(line(2.0), [torch.tensor([[1.0]]), torch.tensor([[3.0], [2.0]])], total)
    assert found["gradient"]["weight"].item() == (1 + 5) / 2
    assert found["gradient_square"]["weight"].item() == (1 + 25) / 2


@pytest.mark.parametrize("net", TOYS)
def test_every_parameter_is_measured_in_its_shape(net):
    model, x = toy(net)
    found = gradients(
        model, [x], lambda out: (out[0] if isinstance(out, tuple) else out).square().mean()
    )
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for kind in ("gradient", "gradient_square"):
        assert {name: g.shape for name, g in found[kind].items()} == shapes
        assert all(bool(g.isfinite().all()) for g in found[kind].values())


def test_tied_weights_add_the_gradients_of_every_use():
    model, x = toy("tied")
    found = gradients(model, [x], total)["gradient"]["embed.weight"]
    total(model(x)).backward()
    torch.testing.assert_close(found, model.embed.weight.grad)


def test_frozen_parameters_are_measured_and_unreached_ones_are_zero():
    model = nn.ModuleDict({"used": line(1.0), "spare": line(1.0)})
    model.forward = lambda x: model["used"](x)
    model.requires_grad_(False)
    found = gradients(model, [torch.ones(1, 1)], total)["gradient"]
    assert {name: g.item() for name, g in found.items()} == {
        "used.weight": 1.0,
        "spare.weight": 0.0,
    }


def test_half_precision_is_summed_in_float32():
    model = line(1.0).bfloat16()
    batches = [torch.full((1, 1), x, dtype=torch.bfloat16) for x in (256.0, 1.0)]
    found = gradients(model, batches, total)["gradient"]["weight"]
    assert found.dtype == torch.float32
    assert found.item() == 257 / 2


@pytest.mark.parametrize(
    ("loss", "what"),
    [(lambda out: out, r"\(2, 1\)"), (lambda out: out.sum() / 0, "inf"), (lambda out: 1.0, "1.0")],
)
def test_a_loss_that_is_not_one_finite_number_names_the_batch(loss, what):
    with pytest.raises(EvidenceError, match=f"the loss of batch 1 is .*{what}, not one finite"):
        gradients(line(1.0), [torch.ones(2, 1)], loss)


def test_a_caller_under_no_grad_gets_gradients():
    with torch.no_grad():
        found = gradients(line(1.0), [torch.ones(1, 1)], total)
    assert found["gradient"]["weight"].item() == 1.0
