"""The costs that the channel papers state, counted on our networks; nothing is trained."""

import pytest
import torch
from torch import nn

from secateurs.measure.compute import macs, macs_by_layer
from secateurs.models.table import MODELS
from secateurs.models.vgg import VGG16, VGG19, VGGCIFAR

X = torch.zeros(1, 3, 32, 32)


def resnet(depth):
    model = MODELS[f"resnet{depth}"].factory()
    convolutions = macs_by_layer(model, X, only="convolution")
    return model, convolutions, dict(model.named_modules())


def test_vgg16_a_of_li_et_al():
    whole, small = VGGCIFAR(VGG16), VGGCIFAR((32, 64, 128, 128, *(256,) * 9))
    counts = [macs(model, X, only="convolution") for model in (whole, small)]
    assert counts == [313_196_544, 206_143_488]
    assert round(100 * (1 - counts[1] / counts[0]), 1) == 34.2
    weights = [sum(p.numel() for p in model.features.parameters()) for model in (whole, small)]
    assert round(100 * (1 - weights[1] / weights[0]), 1) == 64.3


def test_vgg19_of_dcp_adapt():
    widths = (56, 64, 128, 115, 199, 177, 123, 52, 59, 46, 31, 37, 37, 44, 31, 512)
    small = macs(VGGCIFAR(widths), X, only="convolution")
    assert small == 138_993_588
    assert round(macs(VGGCIFAR(VGG19), X, only="convolution") / small, 3) == 2.864


def test_vgg16_of_channel_pruning_five_times():
    # The released widths take 4.52 times fewer MACs in the convolutions, for a label of 5.
    released = (24, 22, 41, 51, 108, 89, 111, 184, 276, 228, 512, 512, 512)

    def count(widths):
        sides = (224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14)
        total, channels = 0, 3
        for width, side in zip(widths, sides, strict=True):
            with torch.device("meta"):
                layer = nn.Conv2d(channels, width, 3, padding=1)
                total += macs(layer, torch.zeros(1, channels, side, side))
            channels = width
        return total

    assert count(VGG16) == 15_346_630_656
    assert round(count(VGG16) / count(released), 2) == 4.52


@pytest.mark.parametrize(
    ("depth", "ratios", "skipped", "fewer_macs", "fewer_weights"),
    [
        (56, (0.1, 0.1, 0.1), (16, 20, 38, 54), 10.4, 9.4),
        (56, (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54), 27.6, 13.8),
        (110, (0.5, 0.0, 0.0), (36,), 15.9, 2.3),
        (110, (0.5, 0.4, 0.3), (36, 38, 74), 38.7, 32.5),
    ],
)
def test_resnets_a_and_b_of_li_et_al(depth, ratios, skipped, fewer_macs, fewer_weights):
    _, layers, modules = resnet(depth)
    names, stage = list(layers), (depth - 2) // 3
    # Convolutions count from 1; the first of each block is cut, except for some.
    keep = {
        name: int(modules[name].out_channels * (1 - ratios[(i - 1) // stage if i > 1 else 0]))
        for i, name in enumerate(names, start=1)
        if i % 2 == 0 and i not in skipped
    }
    left = weights = 0.0
    for before, name in zip(["", *names], names, strict=False):
        conv = modules[name]
        share = keep.get(name, conv.out_channels) / conv.out_channels
        share *= keep[before] / conv.in_channels if before in keep else 1
        left += layers[name] * share
        weights += conv.weight.numel() * share
    assert round(100 * (1 - left / sum(layers.values())), 1) == fewer_macs
    whole = sum(modules[name].weight.numel() for name in names)
    assert round(100 * (1 - weights / whole), 1) == fewer_weights


@pytest.mark.parametrize(
    ("depth", "rate", "fewer"),
    [
        (20, 0.3, 42.2),
        (20, 0.4, 54.0),
        (32, 0.3, 41.5),
        (32, 0.4, 53.2),
        (56, 0.4, 52.6),
        (110, 0.3, 40.8),
        (110, 0.4, 52.3),
    ],
)
def test_fpgm_counts_fractions_of_filters_and_leaves_residual_streams_whole(depth, rate, fewer):
    model, layers, _ = resnet(depth)
    stays, left = 1 - rate, macs(model, X, only="product")
    whole = left + sum(layers.values())
    for name, count in layers.items():
        # Streams keep their width; the first block reads what the first convolution kept.
        narrow = name.endswith("conv2") or name == "layer1.0.conv1"
        left += count * stays * (stays if narrow else 1)
    assert round(100 * (1 - left / whole), 1) == fewer
