import pytest
import torch
from torch import nn

from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.core.layers import layers, plain_module, plain_name
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.realise.compact import compact
from secateurs.realise.masked import masked
from secateurs.testing.nets import toy


def one(model):
    (layer,) = layers(model).values()
    return layer


@pytest.mark.parametrize(
    ("module", "out_axis", "in_axis", "kernel", "group_shape"),
    [
        (nn.Linear(2, 3), 0, 1, (), (3, 2)),
        (nn.Conv2d(4, 6, (2, 3), groups=2), 0, 1, (2, 3), (3, 2, 2, 3)),
        (nn.ConvTranspose1d(4, 6, 5, groups=2), 1, 0, (5,), (2, 3, 5)),
    ],
)
def test_a_weights_axes_are_named(module, out_axis, in_axis, kernel, group_shape):
    layer = one(module)
    assert (layer.param, layer.shape) == ("weight", tuple(module.weight.shape))
    assert (layer.out_axis, layer.in_axis) == (out_axis, in_axis)
    assert (layer.kernel, layer.group_shape) == (kernel, group_shape)


def test_weights_are_listed_in_the_order_of_the_modules():
    assert list(layers(toy("conv2d")[0])) == ["0.weight", "3.weight"]


def test_a_tied_weight_is_listed_once_under_its_first_name():
    assert set(layers(toy("tied")[0])) == {"embed.weight", "mix.weight"}


def test_attention_with_other_key_sizes_has_three_projections():
    found = layers(nn.MultiheadAttention(4, 2, kdim=6, vdim=8))
    assert {name: layer.shape for name, layer in found.items()} == {
        "q_proj_weight": (4, 4),
        "k_proj_weight": (4, 6),
        "v_proj_weight": (4, 8),
        "out_proj.weight": (4, 4),
    }


def test_biases_and_norms_are_not_layers():
    assert layers(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2), nn.Embedding(3, 2))) == {}


class Conv1D(nn.Module):
    """As in transformers: a linear layer that stores (in, out)."""

    def __init__(self):
        super().__init__()
        self.nf = 3
        self.weight = nn.Parameter(torch.empty(2, 3))


def test_a_linear_layer_that_stores_inputs_first_is_read_as_such():
    layer = one(Conv1D())
    assert (layer.out_axis, layer.in_axis, layer.kernel) == (1, 0, ())


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("conv.weight", "conv.weight"),
        ("parametrizations.weight.original", "weight"),
        ("a.b.parametrizations.weight.original", "a.b.weight"),
        ("a.parametrizations.weight.original0", "a.parametrizations.weight.original0"),
    ],
)
def test_a_parametrized_name_is_made_plain(name, plain):
    assert plain_name(name) == plain


def _wrapped():
    inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    return {"compiled": torch.compile(inner), "DataParallel": nn.DataParallel(inner)}, inner


@pytest.mark.parametrize("way", ["compiled", "DataParallel"])
def test_wrapped_models_are_pruned_by_the_names_of_what_they_wrap(way):
    wrappers, inner = _wrapped()
    wrapped = wrappers[way]
    assert plain_module(wrapped) is inner
    x = torch.randn(3, 4)
    graph = trace(wrapped, x)
    sites = channels(graph)
    scores = score(sites, l2, weight=weights(wrapped))
    small = compact(wrapped, graph, select(sites, scores, uniform(sites, 0.5)), x).model
    assert small[0].out_features == 3
    with masked(wrapped, select(sites, scores, uniform(sites, 0.5))):
        assert int((inner[0].weight != 0).any(dim=1).sum()) == 3
