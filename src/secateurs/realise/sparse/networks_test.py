"""Whole networks: what is fused, what stays torch's, and that the result is the model's own."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.core.errors import ShapeError, StructureError
from secateurs.core.layers import layers
from secateurs.models.create import create
from secateurs.realise.sparse import accelerate, available
from secateurs.realise.sparse.choice import DENSE, Choice
from secateurs.realise.sparse.layers_test import difference, run_sparse
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Call, Mean, Pool, Product, Sum
from secateurs.realise.sparse.read import read, shapes_of

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")


def pruned(model, density=0.3, seed=0):
    """Drop weights at random and give every norm statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name in layers(model):
        weight = model.get_parameter(name).data
        weight.mul_((torch.rand(weight.shape, generator=generator) < density) / density**0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def any_choice(op):
    """Share offsets where the groups allow it; leave every third product dense."""
    if len(op.name) % 3 == 0:
        return DENSE
    return Choice(4, 2, 3) if op.groups == 1 else Choice(1, 2)


MODELS = {
    "lenet5": (1, 28), "lenet300": (1, 28), "digits_cnn": (1, 8), "resnet20": (3, 32),
    "torchvision:resnet18": (3, 64), "torchvision:mobilenet_v2": (3, 64),
    "torchvision:mobilenet_v3_small": (3, 64), "torchvision:shufflenet_v2_x0_5": (3, 64),
}  # fmt: skip
LARGE = {
    "torchvision:alexnet": (3, 64), "torchvision:convnext_tiny": (3, 64),
    "torchvision:densenet121": (3, 64), "torchvision:googlenet": (3, 64),
    "torchvision:resnext50_32x4d": (3, 64), "torchvision:vgg11": (3, 64),
    "torchvision:efficientnet_b0": (3, 64), "torchvision:regnet_y_400mf": (3, 64),
    "torchvision:swin_t": (3, 64), "torchvision:squeezenet1_1": (3, 64),
    "torchvision:mnasnet0_5": (3, 64), "torchvision:vit_b_16": (3, 224),
    "torchvision:inception_v3": (3, 96),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_sparse_network_computes_what_the_model_does(name):
    check(name, LARGE[name], 2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_sparse_network_computes_what_the_model_does(name, batch):
    check(name, MODELS[name], batch)


def check(name, shape, batch):
    """Compare two choices of kernels with the model in float64."""
    channels, size = shape
    torch.manual_seed(0)
    model = pruned(create(name))
    x = torch.randn(batch, channels, size, size)
    for choice in (lambda op: Choice(1, 3), any_choice):
        y, products = run_sparse(model, x, choice, instructions=available()[0], threads=2)
        assert products > 2
        assert difference(model, x, y) < 1e-5


def test_norm_sum_and_clamp_are_part_of_the_product_before_them():
    torch.manual_seed(0)
    model = pruned(create("torchvision:resnet18"))
    x = torch.randn(1, 3, 64, 64)
    module, names = read(model, x)
    ops = Lowering(module, shapes_of(module, x), names).ops.values()
    kinds = [type(op) for op in ops if not isinstance(op, Call)]
    assert kinds.count(Product) == 21
    assert kinds.count(Pool) == kinds.count(Mean) == 1
    assert Sum not in kinds
    assert sum(op.residual is not None for op in ops if isinstance(op, Product)) == 8
    torch_s = {str(op.node.target) for op in ops if isinstance(op, Call)}
    assert not any(name.startswith("aten") for name in torch_s)


class Twice(nn.Module):
    """A value that is read before and after it is clamped in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.first(x)
        before = y * 2
        F.relu_(y)
        return self.second(y) + before + y


def test_a_value_that_is_clamped_in_place_is_read_before_and_after():
    torch.manual_seed(0)
    model, x = Twice(), torch.randn(2, 2, 7, 7)
    y, _ = run_sparse(model, x, lambda op: Choice(1, 2))
    assert difference(model, x, y) < 1e-5


class Slices(nn.Module):
    """Writes into a part of a value, which the run time refuses to follow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        y[:, :2].relu_()
        return y


def test_writing_into_a_part_of_a_value_is_refused():
    with pytest.raises(StructureError, match="writes into a value that others share"):
        read(Slices(), torch.randn(1, 2, 5, 5))


class Nested(nn.Module):
    """Two inputs, one by keyword, and a nested result."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x, *, gate):
        y = self.conv(x) * gate
        return {"map": y, "scores": [self.head(y.mean((2, 3)))]}


def test_inputs_by_keyword_and_nested_results_are_passed_on():
    torch.manual_seed(0)
    model, x, gate = Nested(), torch.randn(2, 3, 8, 8), torch.randn(1)
    module, names = read(model.eval(), {"x": x, "gate": gate})
    fast = accelerate(model, {"x": x, "gate": gate}, cache=None, rounds=0, threads=1)
    y, expected = fast(x=x, gate=gate), model(x, gate=gate)
    assert y.keys() == expected.keys()
    torch.testing.assert_close(y["map"], expected["map"])
    torch.testing.assert_close(y["scores"][0], expected["scores"][0])
    assert names["conv.weight"] == "conv.weight"
    assert module.conv.weight.shape == (4, 3, 3, 3)


def test_another_shape_is_refused_with_both():
    fast = accelerate(create("lenet5"), torch.randn(1, 1, 28, 28), cache=None, rounds=0)
    with pytest.raises(
        ShapeError, match=r"made for inputs \(1, 1, 28, 28\) float32, called with \(2"
    ):
        fast(torch.randn(2, 1, 28, 28))


def test_results_are_the_callers_own():
    x = torch.randn(1, 1, 28, 28)
    fast = accelerate(pruned(create("lenet5")), x, cache=None, rounds=0, threads=1)
    first = fast(x)
    kept = first.clone()
    fast(torch.randn(1, 1, 28, 28))
    assert torch.equal(first, kept)


def test_what_happens_to_the_model_later_does_not_reach_it():
    torch.manual_seed(0)
    model, x = pruned(create("digits_cnn")), torch.randn(1, 1, 8, 8)
    fast = accelerate(model, x, cache=None, rounds=0, threads=1)
    before = fast(x)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(fast(x), before)


def test_several_threads_may_call_at_once():
    torch.manual_seed(0)
    model = pruned(create("resnet20"))
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(4)]
    fast = accelerate(model, inputs[0], cache=None, rounds=0, threads=2)
    alone = [fast(x) for x in inputs]
    wrong = []

    def call(i):
        for _ in range(20):
            if not torch.equal(fast(inputs[i]), alone[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_the_model_and_torchs_threads_stay_as_they_were():
    model = pruned(create("lenet5")).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    threads = torch.get_num_threads()
    accelerate(model, torch.randn(1, 1, 28, 28), cache=None, rounds=2, threads=2)
    assert model.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
