import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.core.mask import Mask
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.realise.compact import compact
from secateurs.recovery.renormalise import Moments, renormalise_
from secateurs.recovery.rows import Linear


def batches(*shape, count=4):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(shape, generator=generator), None) for _ in range(count)]


def halved(model, x):
    graph = trace(model, x)
    mask = Mask({})
    for site in channels(graph).values():
        mask &= Mask(site.scatter(torch.arange(site.units) % 2 == 0))
    return compact(model, graph, mask, x)


def plain(depth=3):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 36, 5)).eval().double()


def outputs(model, data, path):
    """Everything a layer sends: → moments over all batches."""
    found, linear = [], Linear(model.get_submodule(path))
    handle = linear.module.register_forward_hook(
        lambda module, args, y: found.append(Moments.of(linear, y))
    )
    with torch.no_grad():
        for x, _ in data:
            model(x)
    handle.remove()
    return sum(found[1:], found[0])


def doubles(*shape, count=4):
    return [(x.double(), y) for x, y in batches(*shape, count=count)]


def test_the_first_cut_layer_gets_exactly_the_mean_and_variance_it_had():
    model, data = plain(), doubles(8, 3, 6, 6)
    small = halved(model, data[0][0])
    before = outputs(small.model, data, "2")
    assert renormalise_(small.model, model, data, small.kept) == ("2", "4", "7")
    wanted, now = outputs(model, data, "2"), outputs(small.model, data, "2")
    stayed = small.kept["2.weight"][0]
    assert not torch.allclose(before.variance, wanted.variance[stayed], rtol=0.1)
    torch.testing.assert_close(now.mean, wanted.mean[stayed])
    torch.testing.assert_close(now.variance, wanted.variance[stayed])


def test_layers_behind_it_come_as_near_as_one_pass_allows():
    model, data = plain(), doubles(64, 3, 6, 6)
    small = halved(model, data[0][0])
    renormalise_(small.model, model, data, small.kept)
    wanted, now = outputs(model, data, "7"), outputs(small.model, data, "7")
    torch.testing.assert_close(now.mean, wanted.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(now.variance, wanted.variance, rtol=0.05, atol=0)


def test_a_deep_network_keeps_the_spread_of_its_outputs():
    model, data = plain(depth=8), doubles(32, 3, 6, 6)
    small = halved(model, data[0][0])
    wanted = outputs(model, data, "17").variance.mean()
    assert outputs(small.model, data, "17").variance.mean() < wanted / 4
    renormalise_(small.model, model, data, small.kept)
    assert 0.9 < outputs(small.model, data, "17").variance.mean() / wanted < 1.1


def test_layers_without_bias_and_the_original_stay_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4)
    )
    model, data = nn.Sequential(*model, nn.Flatten()).eval(), batches(8, 3, 7, 7)
    before = copy.deepcopy(model.state_dict())
    small = halved(model, data[0][0])
    untouched = copy.deepcopy(small.model.state_dict())
    assert renormalise_(small.model, model, data, small.kept) == ()
    for name, value in small.model.state_dict().items():
        torch.testing.assert_close(value, untouched[name])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_batch_norms_in_between_are_measured_anew_while_it_runs():
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
    model, data = nn.Sequential(*body, nn.Linear(16 * 25, 5)).double(), doubles(64, 3, 7, 7)
    with torch.no_grad():
        for x, _ in data:
            model.train()(x)
    model.eval()
    small = halved(model, data[0][0])
    small.model[1].running_var.mul_(100)
    renormalise_(small.model, model, data, small.kept)
    assert not small.model[1].training
    wanted, now = outputs(model, data, "4"), outputs(small.model, data, "4")
    torch.testing.assert_close(now.variance, wanted.variance, rtol=0.05, atol=0)


def test_an_output_that_has_become_constant_is_moved_and_not_stretched():
    model, data = plain(1), doubles(32, 3, 6, 6)
    small = halved(model, data[0][0])
    with torch.no_grad():
        small.model[3].weight[2] = 0
    renormalise_(small.model, model, data, small.kept)
    assert not small.model[3].weight[2].any()
    wanted = outputs(model, data, "3").mean[2]
    torch.testing.assert_close(small.model[3].bias[2].detach(), wanted)


def test_few_outputs_say_nothing_of_their_spread():
    model, data = plain(1), doubles(1, 3, 6, 6, count=5)
    small = halved(model, data[0][0])
    before = small.model[3].weight.detach().clone()
    renormalise_(small.model, model, data, small.kept)
    torch.testing.assert_close(small.model[3].weight.detach(), before)
    wanted, now = outputs(model, data, "3"), outputs(small.model, data, "3")
    torch.testing.assert_close(now.mean, wanted.mean)


def test_moments_of_parts_add_up_to_those_of_the_whole():
    linear, y = Linear(nn.Linear(2, 3)), torch.randn(50, 3, dtype=torch.float64)
    parts = Moments.of(linear, y[:7]) + Moments.of(linear, y[7:20]) + Moments.of(linear, y[20:])
    assert parts.rows == 50
    torch.testing.assert_close(parts.mean, y.mean(0))
    torch.testing.assert_close(parts.variance, y.var(0, correction=0))


def test_inputs_are_needed():
    model, data = plain(1), doubles(8, 3, 6, 6)
    small = halved(model, data[0][0])
    with pytest.raises(PruneError, match="cannot measure outputs without inputs; the loader is"):
        renormalise_(small.model, model, [], small.kept)
