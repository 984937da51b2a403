"""Single layers, of every shape the kernels claim to know, against torch in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from secateurs.realise.sparse import available
from secateurs.realise.sparse.choice import Choice
from secateurs.realise.sparse.engine import Engine
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.read import read, shapes_of

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")


def run_sparse(model, x, choice, *, instructions="plain", threads=1):
    """Return what the sparse engine computes, and how many products it took over."""
    module, names = read(model.eval(), x)
    lowered = Lowering(module, shapes_of(module, x), names)
    choices = {n: choice(op) for n, op in lowered.ops.items() if isinstance(op, Product)}
    engine = Engine(
        module, lowered.ops, lowered.shapes, lowered.alias, choices,
        instructions=instructions, threads=threads,
    )  # fmt: skip
    engine.run((x,), {})  # what the first call leaves in the arena must not matter
    return engine.run((x,), {}), len(choices)


def masked_(layer, density, pattern, generator):
    """Set weights of a layer to zero: single ones, fours of filters, fibres or kernels."""
    w = layer.weight.data
    shape = {
        "element": w.shape,
        "vector": (-(-w.shape[0] // 4), *w.shape[1:]),
        "fibre": (1, *w.shape[1:]),
        "kernel": (*w.shape[:2], *(1,) * (w.dim() - 2)),
    }[pattern]
    keep = torch.rand(shape, generator=generator) < density
    if pattern == "vector":
        keep = keep.repeat_interleave(4, 0)[: len(w)]
    w.mul_(keep)


def difference(model, x, y):
    """Return the greatest difference from float64, over the greatest value there is."""
    exact = model.double()(x.double()).detach()
    model.float()
    return float((y.detach().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-3))


CONVS = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 1, 2, 3]),
        "inputs": st.integers(1, 9),
        "outputs": st.integers(1, 9),
        "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 4), st.integers(0, 4)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "size": st.tuples(st.integers(1, 23), st.integers(1, 23)),
        "batch": st.integers(1, 3),
        "bias": st.booleans(),
    }
)


CASES = st.fixed_dictionaries(
    {
        "conv": CONVS,
        "pattern": st.sampled_from(["element", "vector", "fibre", "kernel"]),
        "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "together": st.sampled_from([1, 2, 4]),
        "vectors": st.integers(1, 3),
        "block": st.sampled_from([1, 2, 5, 1 << 30]),
        "instructions": st.sampled_from(available() or ["plain"]),
        "threads": st.sampled_from([1, 3]),
        "seed": st.integers(0, 99),
    }
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(case=CASES)
def test_a_sparse_convolution_computes_what_torch_does(case):
    check_convolution(**case)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=CASES)
def test_any_sparse_convolution_computes_what_torch_does(case):
    check_convolution(**case)


def check_convolution(
    conv, pattern, density, together, vectors, block, instructions, threads, seed
):
    """Compare one convolution with torch's in float64."""
    reach = [d * (k - 1) + 1 for k, d in zip(conv["kernel"], conv["dilation"], strict=True)]
    size = [max(s, r - 2 * p) for s, r, p in zip(conv["size"], reach, conv["padding"], strict=True)]
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    inputs, outputs = conv["inputs"] * conv["groups"], conv["outputs"] * conv["groups"]
    layer = nn.Conv2d(
        inputs, outputs, conv["kernel"], conv["stride"], conv["padding"], conv["dilation"],
        conv["groups"], conv["bias"],
    )  # fmt: skip
    masked_(layer, density, pattern, generator)
    if conv["groups"] > 1 and conv["outputs"] % together:
        together = 1
    x = torch.randn(conv["batch"], inputs, *size, generator=generator)
    y, products = run_sparse(
        layer, x, lambda op: Choice(together, vectors, block),
        instructions=instructions, threads=threads,
    )  # fmt: skip
    assert products == 1
    assert difference(layer, x, y) < 1e-5


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1,), (2,), (5,), (1, 1), (2, 7), (2, 3, 4)]),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    together=st.sampled_from([1, 2, 4]),
    instructions=st.sampled_from(available() or ["plain"]),
    seed=st.integers(0, 99),
)
def test_a_sparse_linear_layer_computes_what_torch_does(
    shape, inputs, outputs, density, together, instructions, seed
):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs)
    masked_(layer, density, "element", torch.Generator().manual_seed(seed))
    x = torch.randn(*shape, inputs)
    y, products = run_sparse(layer, x, lambda op: Choice(together, 2), instructions=instructions)
    assert products == 1
    assert difference(layer, x, y) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_a_one_dimensional_convolution_is_one_of_height_one(stride):
    torch.manual_seed(0)
    layer = nn.Conv1d(4, 6, 5, stride=stride, padding=2)
    masked_(layer, 0.3, "element", torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 31)
    y, products = run_sparse(layer, x, lambda op: Choice(1, 2))
    assert products == 1
    assert y.shape == layer(x).shape
    assert difference(layer, x, y) < 1e-5


def test_padding_larger_than_the_input_is_read_as_zeros():
    layer = nn.Conv2d(1, 1, 1, padding=(2, 0), bias=False)
    x = torch.ones(1, 1, 1, 1)
    y, _ = run_sparse(layer, x, lambda op: Choice(1, 1))
    assert torch.equal(y, layer(x))


def test_phases_of_a_single_position_are_kept_apart():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (1, 2), stride=(1, 2), bias=False)
    x = torch.randn(1, 2, 1, 2)
    y, _ = run_sparse(layer, x, lambda op: Choice(1, 1))
    torch.testing.assert_close(y, layer(x))


def test_infinite_inputs_stay_where_they_are():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    x = torch.zeros(1, 2, 9, 9)
    x[0, 0, 4, 4] = float("inf")
    y, _ = run_sparse(layer, x, lambda op: Choice(1, 2))
    expected = layer(x)
    assert torch.equal(y.isfinite(), expected.isfinite())
