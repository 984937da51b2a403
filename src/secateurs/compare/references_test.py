import pytest
import torch
from torch import nn

from secateurs.compare.references import expected_ratio, inputs_of, references
from secateurs.core.errors import StructureError


def brute(conv, keep, x, rows):
    """Touch outputs one product at a time; by rows each output once for a row."""
    (n, c, height, width), (out, _, kh, kw) = x.shape, keep.shape
    (sy, sx), (dy, dx), (py, px) = conv.stride, conv.dilation, conv.padding
    oh, ow = conv(x).shape[2:]
    count = 0
    for image in range(n):
        for o in range(out):
            for i in range(c):
                for ky in range(kh):
                    touched = []
                    for kx in range(kw):
                        if not (keep[o, i, ky].any() if rows else keep[o, i, ky, kx]):
                            continue
                        for y in range(oh):
                            for z in range(ow):
                                a, b = y * sy + ky * dy - py, z * sx + kx * dx - px
                                inside = 0 <= a < height and 0 <= b < width
                                if inside and x[image, i, a, b] != 0:
                                    touched.append((y, z))
                    count += len(set(touched)) if rows else len(touched)
    return count


CONVS = [
    nn.Conv2d(2, 3, 3),
    nn.Conv2d(2, 2, (2, 3), stride=(2, 1), padding=(1, 2)),
    nn.Conv2d(1, 2, 3, dilation=2, padding=1),
    nn.Conv2d(2, 2, (3, 1), stride=2),
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
@pytest.mark.parametrize("rows", [True, False])
def test_the_count_is_the_set_of_touched_outputs(conv, rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, conv.in_channels, 7, 6, generator=generator).relu()
    keep = torch.rand(conv.weight.shape, generator=generator) < 0.5
    assert references(conv, keep, x, rows=rows) == brute(conv, keep, x, rows)


@pytest.mark.parametrize("active", [0.1, 0.35, 0.7, 1.0])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_random_activations_give_the_expected_ratio(size, active):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(4, 8, 20, 60, generator=generator) < active).float()
    conv = nn.Conv2d(8, 4, (1, size))
    keep = (torch.rand(4, 8, 1, 1, generator=generator) < 0.5).expand(4, 8, 1, size)
    found = references(conv, keep, x, rows=True) / references(conv, keep, x, rows=False)
    assert found == pytest.approx(expected_ratio(size, active), rel=0.02)


def test_the_inputs_of_a_layer_are_caught_and_the_mode_returns():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Dropout(), nn.Conv2d(1, 1, 1))
    x = torch.randn(1, 1, 2, 2)
    assert torch.equal(inputs_of(net, net[3], x), net[0](x).relu())
    assert net.training
    assert not net[3]._forward_pre_hooks


def test_padding_that_cannot_be_counted_is_refused():
    conv = nn.Conv2d(1, 1, 3, padding="same")
    with pytest.raises(StructureError, match="with padding 'same' of zeros; use a number of pix"):
        references(conv, conv.weight != 0, torch.ones(1, 1, 3, 3), rows=True)
