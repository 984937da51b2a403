import pytest
import torch
from torch import nn

from secateurs.core.layers import layers
from secateurs.evidence.activations import activations
from secateurs.testing.nets import TOYS, toy

KINDS = ("activation", "activation_variance", "activation_square", "input_square")


@pytest.mark.parametrize("net", TOYS)
def test_statistics_broadcast_against_the_weight(net):
    model, x = toy(net)
    found = activations(model, [x, 2 * x])
    assert set(found) == set(KINDS)
    for kind in KINDS:
        for name, tensor in found[kind].items():
            assert torch.broadcast_shapes(tensor.shape, layers(model)[name].shape) == (
                layers(model)[name].shape
            )


def test_statistics_by_hand_over_uneven_batches():
    layer = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-2.0]]))
    found = activations(layer, [torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])])
    assert found["activation"]["weight"].tolist() == [[3.0], [-6.0]]
    assert found["activation_square"]["weight"].flatten().tolist() == pytest.approx(
        [41 / 3, 164 / 3]
    )
    assert found["activation_variance"]["weight"].flatten().tolist() == pytest.approx(
        [14 / 3, 56 / 3]
    )
    assert found["input_square"]["weight"].tolist() == [[pytest.approx(41 / 3)]]


def reference(layer, x, y):
    """Compute statistics at once, from a layer's whole input and output."""
    axes = [d for d in range(y.dim()) if d != y.dim() - 1 - (layer.weight.dim() - 2)]
    return y.mean(axes), y.square().mean(axes), x.square().mean(axes)


@pytest.mark.parametrize("net", ["conv1d", "conv2d", "conv3d", "grouped", "depthwise"])
def test_statistics_of_a_convolution_equal_those_of_its_whole_output(net):
    model, x = toy(net)
    layer = model[0]
    mean, square, heard = reference(layer, x, layer(x).detach())
    found = activations(model, x.split(1))
    torch.testing.assert_close(found["activation"]["0.weight"].flatten(), mean)
    torch.testing.assert_close(found["activation_square"]["0.weight"].flatten(), square)
    # Filter f of group g reads the inputs of g, in order.
    inputs = found["input_square"]["0.weight"].expand(-1, -1, *layer.weight.shape[2:])
    share = heard.view(layer.groups, 1, -1).expand(-1, layer.out_channels // layer.groups, -1)
    torch.testing.assert_close(
        inputs.flatten(2)[..., 0].expand(layer.out_channels, -1),
        share.reshape(layer.out_channels, -1),
    )


@pytest.mark.parametrize(
    "net", ["transposed1d", "transposed2d", "transposed3d", "grouped_transposed"]
)
def test_statistics_of_a_transposed_convolution_lie_along_its_own_axes(net):
    model, x = toy(net)
    layer = model[0]
    mean, _, heard = reference(layer, x, layer(x).detach())
    found = activations(model, [x])
    torch.testing.assert_close(found["input_square"]["0.weight"].flatten(), heard)
    outputs = found["activation"]["0.weight"].flatten(1)
    each = outputs.shape[0] // layer.groups
    torch.testing.assert_close(
        outputs.view(layer.groups, each, -1), mean.view(layer.groups, 1, -1).expand(-1, each, -1)
    )


def test_statistics_hold_where_the_mean_dwarfs_the_deviation():
    layer = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = 1e8 + torch.tensor([0.0, 1, 2, 3], dtype=torch.float64).view(4, 1)
    found = activations(layer, x.split(2))
    assert found["activation_variance"]["weight"].item() == 1.25


def test_a_layer_called_twice_is_measured_over_both_calls():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    found = activations(nn.Sequential(layer, layer), [torch.ones(1, 1)])
    assert found["activation"]["0.weight"].item() == 3.0  # 2 and 4
    assert found["input_square"]["0.weight"].item() == 2.5  # 1 and 4


def test_a_layer_no_batch_reaches_is_absent():
    model = nn.ModuleDict({"used": nn.Linear(1, 1), "spare": nn.Linear(1, 1)})
    model.forward = lambda x: model["used"](x)
    assert list(activations(model, [torch.ones(1, 1)])["activation"]) == ["used.weight"]


def test_unbatched_inputs_are_measured_too():
    conv = nn.Conv2d(2, 3, 1)
    x = torch.randn(2, 4, 4)
    torch.testing.assert_close(activations(conv, [x]), activations(conv, [x[None]]))
