import copy

import pytest
import torch
from torch import nn

from secateurs.models.table import MODELS
from secateurs.models.vgg import VGGCIFAR

LIGHT = [name for name in MODELS if name != "alexnet_caffe"]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def macs(model, shape):
    """Multiply-accumulates of one image in the convolutions, counted by hand."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        taps = module.weight[0].numel()
        total += output[0].numel() * taps

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return total


@pytest.mark.parametrize("name", LIGHT)
def test_a_model_maps_its_input_shape_to_logits(name):
    entry = MODELS[name]
    model = entry.factory(classes=7).eval()
    assert model(torch.randn(2, *entry.input_shape)).shape == (2, 7)


@pytest.mark.parametrize("name", LIGHT)
def test_a_model_takes_other_channel_counts(name):
    _, height, width = MODELS[name].input_shape
    model = MODELS[name].factory(in_channels=2).eval()
    assert model(torch.randn(2, 2, height, width)).shape == (2, 10)


@pytest.mark.parametrize("name", LIGHT)
def test_every_parameter_gets_a_gradient(name):
    model = MODELS[name].factory()
    model(torch.randn(4, *MODELS[name].input_shape)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", LIGHT)
def test_the_same_seed_gives_the_same_weights(name):
    torch.manual_seed(3)
    first = MODELS[name].factory().state_dict()
    torch.manual_seed(3)
    second = MODELS[name].factory().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lenet300", 266_610),
        ("lenet5", 431_080),
        ("vgg19_bn_cifar", 20_035_018),
        ("alexnet_cifar", 5_871_434),
        ("alexnet_quick", 145_578),
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_parameters_are_those_of_the_papers(name, count):
    assert parameters(MODELS[name].factory()) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20", 40_550_400),
        ("resnet32", 68_861_952),
        ("resnet56", 125_485_056),
        ("resnet110", 252_887_040),
        ("vgg16_bn_cifar", 313_196_544),
        ("vgg16_cifar", 313_196_544),
        ("vgg19_bn_cifar", 398_131_200),
    ],
)
def test_convolutions_take_the_papers_macs(name, count):
    assert macs(MODELS[name].factory(), MODELS[name].input_shape) == count


def test_vgg19_has_the_papers_batch_norm_channels():
    model = MODELS["vgg19_bn_cifar"].factory()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(norm.num_features for norm in norms) == 5_504


def test_pruned_vgg16_widths_take_the_papers_macs():
    widths = (32, 64, 128, 128, *(256,) * 9)
    assert macs(VGGCIFAR(widths), (3, 32, 32)) == 206_143_488


def test_caffe_alexnet_has_the_papers_layer_sizes():
    with torch.device("meta"):
        model = MODELS["alexnet_caffe"].factory()
    weights = [p.numel() for p in model.parameters() if p.dim() > 1]
    assert weights == [
        34_848,
        307_200,
        884_736,
        663_552,
        442_368,
        37_748_736,
        16_777_216,
        4_096_000,
    ]
    assert parameters(model) == 60_965_224
    with torch.device("meta"):
        assert model(torch.zeros(2, 3, 227, 227)).shape == (2, 1000)


def test_lenet5_has_no_nonlinearity_after_its_convolutions():
    model = MODELS["lenet5"].factory()
    x = torch.randn(1, 1, 28, 28)
    positive = copy.deepcopy(model)
    with torch.no_grad():
        positive.conv2.bias -= 1e3  # a ReLU would now pass nothing on
    assert not torch.allclose(positive(x), positive(2 * x))


def test_a_shortcut_widens_with_zeros_on_both_sides():
    widen = MODELS["resnet20"].factory().layer2[0].shortcut
    x = torch.randn(2, 16, 4, 4)
    y = widen(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_a_resnet_state_holds_what_other_ports_save():
    keys = set(MODELS["resnet20"].factory().state_dict())
    assert {"conv1.weight", "layer2.0.bn1.running_mean", "layer3.2.conv2.weight"} <= keys
    assert {"linear.weight", "linear.bias"} <= keys
    assert not any("shortcut" in key for key in keys)
