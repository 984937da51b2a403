import pytest
import torch
from torch import nn

from secateurs.recovery.rows import Linear, kept_outputs, linears

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "tokens": (lambda: nn.Linear(6, 4), (3, 5, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3, stride=2, padding=1), (3, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(6, 4, (3, 2), padding=(1, 2), dilation=(2, 1)), (3, 6, 7, 8)),
    "valid": (lambda: nn.Conv2d(6, 4, 3, stride=(1, 2), bias=False), (2, 6, 6, 7)),
    "same": (lambda: nn.Conv2d(6, 4, 4, padding="same"), (2, 6, 6, 7)),
    "reflect": (lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), (2, 6, 5, 5)),
    "grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 6)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (2, 6, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(6, 4, (1, 2, 3), padding=1), (2, 6, 3, 4, 5)),
}


@pytest.mark.parametrize("per_example", [None, 2])
@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_rows_times_the_matrix_are_the_layers_outputs(case, per_example):
    build, shape = case
    module = build().double()
    x = torch.randn(shape, dtype=torch.float64)
    y = module(x)
    linear = Linear.of(module)
    at = linear.positions(y, per_example, torch.Generator().manual_seed(0))
    rows = linear.inputs(x, y.shape, at)
    product = torch.einsum("rgs,gos->rgo", rows, linear.matrix()).flatten(1)
    if module.bias is not None:
        product = product + module.bias
    torch.testing.assert_close(product, linear.outputs(y, at))
    assert len(set(map(tuple, at.tolist()))) > 0
    assert all(len(set(row)) == len(row) for row in at.tolist())


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_writing_the_matrix_back_changes_nothing(case):
    module = case[0]()
    before = module.weight.detach().clone()
    linear = Linear.of(module)
    linear.write_(linear.matrix())
    assert torch.equal(module.weight, before)


class Conv1D(nn.Module):
    """Stores (in, out), as in transformers' GPT-2."""

    def __init__(self):
        super().__init__()
        self.nf = 4
        self.weight, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return x @ self.weight + self.bias


def test_a_weight_stored_in_by_out_is_transposed():
    module = Conv1D()
    x = torch.randn(2, 3, 6)
    linear = Linear.of(module)
    at = linear.positions(module(x), None, torch.Generator())
    rows = linear.inputs(x, module(x).shape, at)[:, 0]
    torch.testing.assert_close(
        rows @ linear.matrix()[0].T + module.bias, linear.outputs(module(x), at)
    )
    before = module.weight.detach().clone()
    linear.write_(linear.matrix())
    assert torch.equal(module.weight, before)
    kept = {"weight": {1: torch.tensor([True, False, True, True])}}
    assert kept_outputs(linear, "", kept).tolist() == [0, 2, 3]


def test_transposed_convolutions_and_shared_weights_are_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 2, 2)
            self.embed = nn.Embedding(5, 3)
            self.read = nn.Linear(3, 5)
            self.read.weight = self.embed.weight
            self.fc = nn.Linear(5, 2)

    assert list(linears(Net())) == ["fc"]
