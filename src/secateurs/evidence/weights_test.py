import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.core.layers import layers
from secateurs.criteria.magnitude import l1
from secateurs.evidence.activations import activations
from secateurs.evidence.gradients import gradients
from secateurs.evidence.weights import filter_norms, weights
from secateurs.granularity.grains import elements
from secateurs.realise.masked import masked
from secateurs.testing.nets import TOYS, toy


def test_weights_are_not_copied_and_need_no_gradient():
    model, _ = toy("conv2d")
    found = weights(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert not found["0.weight"].requires_grad


def test_tied_weights_appear_once_under_the_first_name():
    assert set(weights(toy("tied")[0])) == {"embed.weight", "mix.weight", "mix.bias"}


def test_a_parametrized_weight_keeps_its_plain_name_and_stored_value():
    layer = nn.Linear(1, 1)
    parametrize.register_parametrization(layer, "weight", nn.ReLU())
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(-2.0)
    assert weights(layer)["weight"].item() == -2.0


@pytest.mark.parametrize("net", TOYS)
def test_filter_norms_have_one_number_per_output_channel(net):
    model, _ = toy(net)
    for name, layer in layers(model).items():
        norms = filter_norms(model, p=1)[name]
        weight = model.get_parameter(name)
        assert all(have in (1, want) for have, want in zip(norms.shape, weight.shape, strict=True))
        # One number per output channel, repeated only where a group's share must tell groups apart.
        outs = layer.shape[layer.out_axis] * (layer.groups if layer.transposed else 1)
        assert len(norms.flatten().unique()) == outs
        share = layer.shape[0] // layer.groups if norms.numel() > outs else 1
        torch.testing.assert_close(norms.sum(), weight.abs().sum() * share)


def test_filter_norms_by_hand():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 1.0]]))
    assert filter_norms(layer)["weight"].tolist() == [[7.0], [1.0]]
    assert filter_norms(layer, p=2)["weight"].tolist() == [[5.0], [1.0]]


def test_names_and_shapes_stay_while_a_model_is_masked():
    model, x = toy("conv2d")
    sites, plain = elements(model), weights(model)
    mask = select(sites, score(sites, l1, weight=plain), uniform(sites, 0.5))
    with masked(model, mask):
        held = weights(model)
        assert {n: w.shape for n, w in held.items()} == {n: w.shape for n, w in plain.items()}
        assert set(elements(model)) == set(sites)
        assert set(activations(model, [x])["activation"]) == set(sites)
        kept = gradients(model, [x], lambda y: y.square().mean())["gradient"]["0.weight"]
    assert torch.equal(held["0.weight"] != 0, mask["0.weight"])
    assert bool((kept[~mask["0.weight"]] == 0).all())
