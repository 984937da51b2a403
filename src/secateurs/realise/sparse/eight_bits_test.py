"""Weights of 8 bits: what they may be off by, that nothing else is lost, and who may have them."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateurs.core.errors import FileError, ShapeError, UnknownNameError
from secateurs.models.create import create
from secateurs.realise.coding.container import read
from secateurs.realise.sparse import accelerate, available, choose, native
from secateurs.realise.sparse.assemble import assemble
from secateurs.realise.sparse.choice import Choice
from secateurs.realise.sparse.encode import encode, quantised
from secateurs.realise.sparse.files import load_accelerated
from secateurs.realise.sparse.files_test import write
from secateurs.realise.sparse.layers_test import difference, masked_, run_sparse
from secateurs.realise.sparse.networks_test import pruned
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.steps import fits_small

needs_kernels = pytest.mark.skipif(not available(), reason="no C compiler at installation")
WEIGHTS = [
    torch.tensor([[1.0, -127, 63.4, 63.6, 0], [0.5, 0.25, 0, 0, 0], [0] * 5]),
    torch.randn(7, 40, generator=torch.Generator().manual_seed(0)),
    torch.full((1, 3), 3.4e38),
    torch.tensor([[1e-45, 1e-40, 0.0]]),
    torch.zeros(3, 0),
]


@pytest.mark.parametrize("weight", WEIGHTS, ids=["example", "random", "huge", "tiny", "empty"])
def test_a_weight_is_off_by_at_most_half_a_step(weight):
    steps, scale = quantised(weight)
    step = torch.from_numpy(scale).double()[:, None]
    assert steps.dtype == torch.int8
    assert bool(((steps.double() * step - weight.double()).abs() <= step / 2).all())
    assert bool((step > 0).all())


def test_steps_are_of_each_filters_greatest_weight():
    steps, scale = quantised(WEIGHTS[0])
    assert steps.tolist() == [[1, -127, 63, 64, 0], [127, 64, 0, 0, 0], [0] * 5]
    assert scale[:2].tolist() == pytest.approx([1, 0.5 / 127])


def dequantised_(layer):
    """Give a layer the weights that 8 bits hold."""
    steps, scale = quantised(layer.weight.flatten(1))
    held = steps.float() * torch.from_numpy(scale)[:, None]
    layer.weight.data = held.view_as(layer.weight)
    return layer


@needs_kernels
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1,), (2,), (5,), (2, 7), (2, 3, 4)]),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    together=st.sampled_from([1, 2, 4]),
    vectors=st.integers(1, 3),
    instructions=st.sampled_from(available() or ["plain"]),
    seed=st.integers(0, 99),
)
def test_a_linear_layer_is_exactly_that_of_the_weights_it_holds(
    shape, inputs, outputs, density, together, vectors, instructions, seed
):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs)
    masked_(layer, density, "element", torch.Generator().manual_seed(seed))
    x = torch.randn(*shape, inputs)
    choice = Choice(together, vectors, bits=8)
    y, _ = run_sparse(layer, x, lambda op: choice, instructions=instructions)
    assert difference(dequantised_(layer), x, y) < 1e-5


@needs_kernels
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    groups=st.sampled_from([1, 1, 2]),
    inputs=st.integers(1, 20),
    outputs=st.sampled_from([1, 3, 4, 12]),
    size=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    stride=st.integers(1, 3),
    batch=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    together=st.sampled_from([1, 2, 4]),
    vectors=st.integers(1, 3),
    block=st.sampled_from([1, 3, 1 << 30]),
    instructions=st.sampled_from(available() or ["plain"]),
    threads=st.sampled_from([1, 3]),
)
def test_a_convolution_of_one_tap_is_exactly_that_of_the_weights_it_holds(
    groups, inputs, outputs, size, stride, batch, density, together, vectors, block,
    instructions, threads,
):  # fmt: skip
    torch.manual_seed(inputs)
    layer = nn.Conv2d(inputs * groups, outputs * groups, 1, stride, groups=groups)
    masked_(layer, density, "element", torch.Generator().manual_seed(inputs))
    if groups > 1 and outputs % together:
        together = 1
    x = torch.randn(batch, inputs * groups, *size)
    y, _ = run_sparse(
        layer, x, lambda op: Choice(together, vectors, block, 8),
        instructions=instructions, threads=threads,
    )  # fmt: skip
    assert difference(dequantised_(layer), x, y) < 1e-5


def product(shape, **settings):
    """Return a convolution of no more memory than one number."""
    weight = torch.zeros(()).expand(shape)
    return Product("y", "x", "w", weight, torch.zeros(()).expand(shape[:1]), **settings)


def test_who_may_have_weights_of_8_bits():
    assert fits_small(product((8, 4, 1, 1), stride=(2, 2)))
    assert fits_small(product((1, 1 << 16, 1, 1), linear=True))
    assert not fits_small(product((1, 1 + (1 << 16), 1, 1), linear=True))
    assert not fits_small(product((8, 4, 1, 1), padding=(0, 1)))
    assert not fits_small(product((8, 4, 1, 3)))
    assert not fits_small(
        replace(product((1, 1, 1, 1)), weight=torch.full((1, 1, 1, 1), float("inf")))
    )


@pytest.fixture(scope="module")
def small():
    """A network whose layers are of 8 bits wherever they may be, and its input."""
    model = pruned(create("digits_cnn"))
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            choose, "_fastest", lambda runs: min(runs, key=lambda c: getattr(c, "bits", 0))
        )
        patch.setattr(choose, "_in_turns", lambda runs, rounds=1: [*range(1, len(runs) + 1)])
        return accelerate(model, x, weights="int8", cache=None, rounds=0, threads=1), x


@needs_kernels
def test_layers_have_8_bits_where_that_is_faster_and_possible(small):
    fast, _ = small
    for line in fast.plan:
        assert line.chosen.choice.bits == (8 if line.shape[2:] in ((), (1, 1)) else 32)
    some = sum(line.chosen.choice.bits == 8 for line in fast.plan)
    assert some > 0
    assert f"{some} of them in 8 bits" in repr(fast)


@needs_kernels
def test_what_was_timed_with_8_bits_is_kept_apart(tmp_path):
    layer, x, cache = nn.Linear(4, 4).eval(), torch.ones(1, 4), tmp_path / "timings.json"
    for weights in ("float32", "int8"):
        fast = accelerate(layer, x, weights=weights, cache=cache, rounds=0, threads=1)
        assert weights == "int8" or fast.plan[0].chosen.choice.bits == 32
    small = ["(32, 8)" in key for key in json.loads(cache.read_text())]
    assert sorted(small) == [False, True]


@needs_kernels
def test_a_file_keeps_which_layers_are_of_8_bits(small, tmp_path):
    fast, x = small
    fast.save(tmp_path / "small.secz")
    again = load_accelerated(tmp_path / "small.secz")
    assert again.chosen == fast.chosen
    assert torch.equal(again(x), fast(x))


@needs_kernels
def test_a_file_from_before_there_were_8_bits_still_loads(small, tmp_path):
    fast, x = small
    fast.save(tmp_path / "new.secz")
    contents = read(tmp_path / "new.secz")
    for chosen in contents.recipe["choices"].values():
        del chosen["choice"]["bits"]
    write(tmp_path / "old.secz", contents.tensors, contents.recipe)
    again = load_accelerated(tmp_path / "old.secz")
    assert {line.chosen.choice.bits for line in again.plan} == {32}
    assert (again(x) - fast(x)).abs().max() < 0.1


@needs_kernels
@pytest.mark.parametrize(
    ("bits", "says"),
    [(16, "bits: '16' is not one of"), (True, "bits: 'True'"), (8.0, "bits: '8.0'"),
     ([8], r"bits: '\[8\]'"), (8, "cannot be of 8 bits; only linear layers and 1 x 1")],
)  # fmt: skip
def test_other_bits_and_8_bits_for_wide_kernels_are_refused(
    small, tmp_path, monkeypatch, bits, says
):
    fast, _ = small
    fast.save(tmp_path / "good.secz")
    contents = read(tmp_path / "good.secz")
    recipe = copy.deepcopy(contents.recipe)
    for name, chosen in recipe["choices"].items():
        if fast.chosen[name].choice.bits == 32:
            chosen["choice"]["bits"] = bits
    write(tmp_path / "bad.secz", contents.tensors, recipe)
    monkeypatch.setattr(native, "run", lambda *_: pytest.fail("a kernel ran"))
    with pytest.raises(FileError, match=f"choices, .*{says}|choices: .*{says}"):
        load_accelerated(tmp_path / "bad.secz")


def test_unknown_weights_are_refused():
    with pytest.raises(UnknownNameError, match="unknown weights 'int4'; use float32 or int8"):
        accelerate(nn.Linear(4, 2), torch.ones(1, 4), weights="int4")


def test_an_image_beyond_what_offsets_reach_is_refused_before_memory_is_taken():
    side = 1 << 16
    op = product((1, 1, 3, 3), padding=(1, 1))
    with pytest.raises(ShapeError, match="floats an image; the sparse kernels reach 2147483648"):
        assemble({"y": op}, {"x": (1, 1, side, side), "y": (1, 1, side, side)}, {})


def test_places_do_not_wrap():
    weight, bias = torch.ones(1, 1), torch.zeros(1)
    for place, scale in ((1 << 31, None), (1 << 16, np.ones(1, np.float32))):
        with pytest.raises(ShapeError, match=f"{place} do not fit"):
            encode(weight, bias, np.array([[place]]), together=1, block=1, scale=scale)
