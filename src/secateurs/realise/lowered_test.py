import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateurs.core.errors import ShapeError, StructureError
from secateurs.granularity.strided import Strided
from secateurs.realise.lowered import Lowered, lowered
from secateurs.realise.masked import apply_mask

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def shared(conv, stride, seed=0, keep=1):
    """Draw a mask of every stride-th position, at offsets the filters share."""
    site = Strided("w", tuple(conv.weight.shape), stride, groups=conv.groups)
    scores = torch.rand(site.units // stride, stride, generator=torch.Generator().manual_seed(seed))
    kept = scores.argsort(dim=1).argsort(dim=1) < keep
    return site.scatter(kept.flatten())["w"]


def same(conv, mask, size, tolerance=1e-6):
    x = torch.randn(2, conv.in_channels, *size, dtype=conv.weight.dtype)
    small = Lowered(conv, mask)
    torch.testing.assert_close(
        small(x), apply_mask(conv, {"weight": mask})(x), rtol=tolerance, atol=tolerance
    )
    return small


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_computes_what_the_masked_convolution_computes(data):
    draw = data.draw
    axes, groups = draw(st.sampled_from([1, 2, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    kernel = tuple(draw(st.integers(2, 4)) for _ in range(axes))
    conv = KINDS[axes](
        3 * groups,
        2 * groups,
        kernel,
        stride=tuple(draw(st.integers(1, 3)) for _ in kernel),
        dilation=(dilation := tuple(draw(st.integers(1, 2)) for _ in kernel)),
        padding=tuple(draw(st.integers(0, 3)) for _ in kernel),
        groups=groups,
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )
    stride = draw(st.integers(2, min(4, conv.weight[0, 0].numel())))
    mask = shared(conv, stride, draw(st.integers(0, 99)))
    size = [
        d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True)
    ]
    small = same(conv, mask, size)
    first_of_groups = mask[:: conv.out_channels // groups]
    assert small.columns == int(first_of_groups.sum())


@pytest.mark.parametrize("padding", ["same", "valid", 2])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
def test_padding_is_that_of_the_convolution(padding, mode):
    conv = nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode, dtype=torch.float64)
    same(conv, shared(conv, 3), (7, 8))


def test_an_input_map_that_is_dropped_whole_leaves_with_all_its_columns():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    mask = shared(conv, 2)
    mask[:, 1] = False
    small = same(conv, mask, (6, 6), tolerance=1e-5)
    assert small.columns == int(mask[0].sum())
    assert set(small.taps[:, 0].tolist()) == {0, 2}


def test_nothing_left_is_the_bias():
    conv = nn.Conv2d(1, 2, 2)
    small = same(conv, torch.zeros_like(conv.weight, dtype=torch.bool), (3, 3))
    assert small.columns == 0


def test_the_columns_are_what_every_map_keeps():
    conv = nn.Conv2d(4, 6, 5)
    small = Lowered(conv, shared(conv, 3))
    per_map = torch.bincount(small.taps[:, 0])
    assert all(n in (8, 9) for n in per_map.tolist())
    assert [tuple(w.shape) for w in small.weight] == [(6, int(per_map.sum()))]


def test_offsets_of_their_own_are_refused():
    conv = nn.Conv2d(2, 3, 3)
    site = Strided("w", tuple(conv.weight.shape), 2, shared=False)
    keep = torch.tensor([True, False, True, False] + [False, True] * 4)
    with pytest.raises(ShapeError, match=r"'0.weight': 2 of 3 filters keep other .*shared=True"):
        lowered(nn.Sequential(conv), {"0.weight": site.scatter(keep)["w"]})


def test_a_model_is_copied_and_its_masked_convolutions_replaced():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    mask = {"0.weight": torch.ones(2, 1, 3, 3).bool(), "2.weight": shared(net[2], 2)}
    small = lowered(net, mask)
    assert [type(m) for m in small] == [nn.Conv2d, nn.ReLU, Lowered]
    assert type(net[2]) is nn.Conv2d
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(small(x), apply_mask(net, mask)(x))
    assert "2 out, 10 columns, 1 groups" in repr(lowered(net[2], {"weight": shared(net[2], 2)}))


def test_gradients_are_those_of_the_kept_weights():
    conv = nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64)
    mask = shared(conv, 2)
    small, plain = Lowered(conv, mask), apply_mask(conv, {"weight": mask})
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    (ours,) = torch.autograd.grad((small(x) * y).sum(), small.weight[0], retain_graph=True)
    theirs = torch.autograd.grad((plain(x) * y).sum(), plain.weight)[0]
    torch.testing.assert_close(ours, theirs.flatten(1)[:, mask[0].flatten()])
    (into,) = torch.autograd.grad((small(x) * y).sum(), x)
    torch.testing.assert_close(into, torch.autograd.grad((plain(x) * y).sum(), x)[0])


@pytest.mark.parametrize(
    ("net", "name", "kind"),
    [
        (nn.Linear(2, 2), "weight", "Linear"),
        (nn.ConvTranspose1d(2, 2, 2), "weight", "ConvTranspose1d"),
        (nn.Sequential(nn.Conv1d(1, 1, 2)), "0.bias", "Conv1d"),
        (nn.Sequential(), "7.weight", "nothing"),
    ],
)
def test_what_cannot_be_lowered_is_named(net, name, kind):
    with pytest.raises(StructureError, match=rf"'{name}' belongs to {kind}; only the weights of"):
        lowered(net, {name: torch.ones(2, 2, 2).bool()})


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"of shape \(1, 1\) does not fit a weight of shape \(1"):
        lowered(nn.Conv1d(1, 1, 2), {"weight": torch.ones(1, 1).bool()})
