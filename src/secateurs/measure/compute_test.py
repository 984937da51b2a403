import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from secateurs.measure.compute import macs, macs_by_layer
from secateurs.models.create import create


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def x(*shape):
    return torch.ones(shape)


# Every count is (entries of the output) x (multiplications for one entry), by hand.
BY_HAND = {
    "linear": (nn.Linear(5, 7), x(2, 5), 2 * 7 * 5),
    "linear on sequences": (nn.Linear(5, 7), x(2, 3, 5), 2 * 3 * 7 * 5),
    "linear without bias": (nn.Linear(5, 7, bias=False), x(2, 3, 5), 2 * 3 * 7 * 5),
    "linear on a vector": (nn.Linear(5, 7), x(5), 7 * 5),
    "bilinear": (Does(lambda a, b: a @ b), (x(3), x(3)), 3),
    "conv1d": (nn.Conv1d(2, 3, 5), x(1, 2, 9), 3 * 5 * 2 * 5),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1, stride=2), x(4, 2, 8, 8), 4 * 3 * 16 * 2 * 9),
    "conv3d": (nn.Conv3d(2, 3, (1, 2, 3)), x(1, 2, 4, 4, 4), 3 * 4 * 3 * 2 * 2 * 6),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), x(1, 4, 5, 5), 6 * 9 * 2 * 9),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), x(1, 4, 5, 5), 4 * 9 * 9),
    "transposed": (nn.ConvTranspose2d(2, 3, 4, stride=2), x(1, 2, 5, 5), 2 * 25 * 3 * 16),
    "transposed grouped": (nn.ConvTranspose1d(4, 6, 3, groups=2), x(1, 4, 5), 4 * 5 * 3 * 3),
    "matmul": (Does(torch.matmul), (x(2, 3, 4), x(2, 4, 5)), 2 * 3 * 5 * 4),
    "matrix and vector": (Does(torch.mv), (x(3, 4), x(4)), 12),
    "baddbmm": (Does(torch.baddbmm), (x(2, 3, 5), x(2, 3, 4), x(2, 4, 5)), 2 * 3 * 5 * 4),
    "addbmm": (Does(torch.addbmm), (x(3, 5), x(2, 3, 4), x(2, 4, 5)), 2 * 3 * 5 * 4),
    "addmv": (Does(torch.addmv), (x(3), x(3, 4), x(4)), 12),
    "einsum": (
        Does(lambda a, b: torch.einsum("bij,bjk->bik", a, b)),
        (x(2, 3, 4), x(2, 4, 5)),
        120,
    ),
    "attention": (
        Does(F.scaled_dot_product_attention),
        (x(2, 3, 7, 4), x(2, 3, 9, 4), x(2, 3, 9, 4)),
        2 * 3 * 7 * 9 * (4 + 4),
    ),
    "attention with wide values": (
        Does(F.scaled_dot_product_attention),
        (x(2, 3, 7, 4), x(2, 3, 9, 4), x(2, 3, 9, 6)),
        2 * 3 * 7 * 9 * (4 + 6),
    ),
    "causal attention": (
        Does(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        x(1, 2, 8, 4),
        2 * 8 * 8 * 8,
    ),
    "multi-head attention": (
        Does(nn.MultiheadAttention(8, 2, batch_first=True)),
        (x(1, 5, 8), x(1, 5, 8), x(1, 5, 8)),
        5 * 8 * 24 + 2 * 2 * 5 * 5 * 4 + 5 * 8 * 8,
    ),
    "encoder layer": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        x(1, 5, 8),
        5 * 8 * 24 + 2 * 2 * 5 * 5 * 4 + 5 * 8 * 8 + 2 * 5 * 8 * 16,
    ),
    "lstm": (nn.LSTM(5, 7), x(3, 2, 5), 3 * 2 * 4 * 7 * (5 + 7)),
    "norm, activation and pooling": (
        nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2)),
        x(1, 2, 4, 4),
        0,
    ),
}


@pytest.mark.parametrize(("model", "example", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_counts_agree_with_those_made_by_hand(model, example, expected):
    assert macs(model, example) == expected
    assert sum(macs_by_layer(model, example).values()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", 40_550_400),
        ("resnet32", 68_861_952),
        ("resnet56", 125_485_056),
        ("resnet110", 252_887_040),
        ("vgg16_bn_cifar", 313_196_544),
        ("vgg19_bn_cifar", 398_131_200),
    ],
)
def test_convolutions_of_the_papers_networks_count_as_in_the_papers(name, expected):
    model, image = create(name), torch.zeros(1, 3, 32, 32)
    assert macs(model, image, only="convolution") == expected
    layers = macs_by_layer(model, image)
    head = list(layers)[-1]
    assert macs(model, image) == expected + layers[head]


def test_the_whole_batch_counts_unless_one_example_is_asked_for():
    net = nn.Linear(5, 7)
    assert macs(net, x(6, 5)) == 6 * 35
    assert macs(net, x(6, 5), per_example=True) == 35


def test_layers_are_named_by_path_in_order_of_use():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
    assert macs_by_layer(net, x(1, 1, 4, 4)) == {"0": 2 * 4 * 9, "1.1": 24}
    assert macs_by_layer(net, x(1, 1, 4, 4), only="product") == {"1.1": 24}


def test_a_module_used_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert macs_by_layer(nn.Sequential(layer, layer), x(1, 4)) == {"0": 32}


def test_a_traced_program_names_the_owner_of_the_weight():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    program = torch.export.export(net.eval(), (x(1, 1, 4, 4),)).module()
    assert macs_by_layer(program, x(1, 1, 4, 4)) == {"0": 2 * 4 * 9, "2": 24}


def test_zeros_and_parametrizations_count_like_any_weight():
    class Zero(nn.Module):
        def forward(self, weight):
            return weight * 0

    net = nn.Sequential(nn.Linear(4, 4))
    parametrize.register_parametrization(net[0], "weight", Zero())
    assert macs_by_layer(net, x(1, 4)) == {"0": 16}


def test_counting_leaves_modes_statistics_and_hooks_as_they_were():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    net[2].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    macs(net, x(1, 1, 4, 4))
    assert [m.training for m in net.modules()] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_failing_forward_leaves_no_hooks():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError):
        macs(net, x(1, 5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
