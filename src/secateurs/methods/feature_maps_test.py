from dataclasses import replace
from math import nan

import pytest
import torch
from torch import Generator

from secateurs.core.errors import EvidenceError, PruneError
from secateurs.evidence.maps import independence, map_statistics, ranks
from secateurs.graph.trace import trace
from secateurs.methods.feature_maps import chip, hrank
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN, TinyViT


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


X = randn(6, 1, 8, 8)


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DigitsCNN(width=8).eval()


def task(model):
    return Task(model, X[:2], batches=lambda: [(X, torch.zeros(6))])


def test_the_rank_of_a_map_by_hand():
    outer = torch.outer(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 0, 2]))
    maps = torch.stack([torch.eye(3), outer, torch.zeros(3, 3)])[None]
    assert ranks(maps).tolist() == [[3, 1, 0]]


def test_independence_is_the_fall_of_the_nuclear_norm_by_singular_values():
    maps = randn(2, 5, 3, 4)
    rows = maps.flatten(2)
    for i in range(5):
        without = rows.clone()
        without[:, i] = 0
        fall = torch.linalg.svdvals(rows).sum(-1) - torch.linalg.svdvals(without).sum(-1)
        torch.testing.assert_close(independence(maps)[:, i].float(), fall, rtol=1e-4, atol=1e-5)


def test_a_map_that_is_another_ones_copy_is_less_independent():
    maps = randn(1, 4, 4, 4)
    maps[:, 3] = maps[:, 0]
    maps = maps / maps.flatten(2).norm(dim=2)[..., None, None]
    found = independence(maps)[0]
    assert found[[0, 3]].max() < found[[1, 2]].min()


def test_statistics_are_means_over_samples_and_over_the_maps_of_a_stream():
    model = net()
    found = map_statistics(
        trace(model, X[:2]), model, X[:2], [X], lambda maps: maps.amax(dim=(2, 3))
    )
    with torch.no_grad():
        first = model.stem(X).relu()
        inner = model.block1.conv1(first).relu()
        second = (first + model.block1.conv2(inner)).relu()
    peaks = [t.amax(dim=(2, 3)).mean(dim=0) for t in (first, second, inner)]
    expected = {"stem.0.weight:0": (peaks[0] + peaks[1]) / 2, "block1.conv1.0.weight:0": peaks[2]}
    for name, values in expected.items():
        torch.testing.assert_close(found[name].float(), values)


@pytest.mark.parametrize("method", [hrank, chip])
def test_a_channel_that_shows_nothing_leaves_first(method):
    model = net()
    with torch.no_grad():
        model.block1.conv1[1].weight[6] = 0
        model.block1.conv1[1].bias[6] = -1
    pruned = method(task(model), Target("density", 0.9))
    assert pruned.compacted.kept["block1.conv1.0.weight"][0].tolist() == [True] * 6 + [False, True]


@pytest.mark.parametrize("method", [hrank, chip])
def test_the_target_is_met_and_proved(method):
    pruned = method(task(net()), Target("macs", 0.5))
    assert pruned.compacted.proof.difference < 1e-8
    assert pruned.compacted.put_back == ()


def test_what_is_missing_is_said():
    with pytest.raises(EvidenceError, match="the task has no batches; pass Task"):
        hrank(Task(net(), X[:2]), Target())
    with pytest.raises(EvidenceError, match=r"no feature maps, .*, of .*qkv.weight:0.*exclude"):
        hrank(task(TinyViT(width=16).eval()), Target())
    blind = replace(task(net()), batches=lambda: [torch.full_like(X, nan)])
    with pytest.raises(PruneError, match=r"feature maps of .* are NaN or infinite for some inputs"):
        chip(blind, Target())
