import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.graph.cost import predict
from secateurs.graph.trace import trace
from secateurs.methods.readers import Reader
from secateurs.methods.reduce_reuse import Activity, Moments, reduce_reuse, replace_
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.recovery.batchnorm import recalibrate_
from secateurs.recovery.rows import Linear


def inputs(*shape, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator), None) for _ in range(n)]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=0), nn.Flatten()
    ).eval()


def gap(small, original, x):
    with torch.no_grad():
        y = original(x)
        return float((small(x) - y).square().mean() / y.var())


def prune(model, data, density, **options):
    task = Task(model, data[0][0], batches=lambda: data, repair="none")
    return reduce_reuse(task, Target("density", density), **options).model


@pytest.mark.parametrize("statistic", ["norm", "element"])
def test_a_constant_channel_goes_into_the_bias(statistic):
    model, data = net(), inputs(8, 3, 7, 7)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 1.5
    small = prune(model, data, 5 / 6, statistic=statistic, reuse=False)
    assert small[0].out_channels == 5
    assert gap(small, model, data[0][0]) < 1e-10


def test_a_mix_of_two_others_is_recovered():
    model, data = net(), inputs(8, 3, 7, 7)
    with torch.no_grad():
        # Kept positive, so that the activation function leaves the mix linear.
        model[0].bias.fill_(20)
        model[0].weight[4] = 0.01 * (model[0].weight[0] + 2 * model[0].weight[1])
    small = prune(model, data, 5 / 6, ridge=0.0)
    assert gap(small, model, inputs(8, 3, 7, 7, seed=5)[0][0]) < 1e-5
    weight = model[2].weight.detach()
    expected = weight[:, :2] + torch.tensor([0.01, 0.02]).view(1, 2, 1, 1) * weight[:, 4:5]
    torch.testing.assert_close(small[2].weight[:, :2], expected, rtol=1e-3, atol=1e-3)


def test_moments_streamed_are_those_of_two_passes():
    values = torch.randn(97, 5, dtype=torch.float64) * 3 + 1000
    streamed = Moments()
    for part in values.split(10):
        streamed.add_(part)
    expected = (values - values.mean(0)).square().sum(0)
    torch.testing.assert_close(streamed.spread, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(streamed.mean, values.mean(0))


def test_a_pattern_that_moves_at_constant_energy_is_seen_by_its_elements():
    a = torch.eye(4, dtype=torch.float64).repeat(3, 1)[:, None]  # a dot that wanders
    b = torch.linspace(0, 0.1, 12, dtype=torch.float64).view(-1, 1, 1).expand(-1, 1, 4)
    maps = torch.cat([a, b], dim=1)
    flat = maps.transpose(0, 1).flatten(1)
    norms = Moments()
    norms.add_(maps.norm(dim=2))
    activity = Activity(flat.shape[1], flat.sum(1), flat @ flat.T, norms)
    assert activity.variance("norm").argmax() == 1
    assert activity.variance("element").argmax() == 0


def test_groups_take_stand_ins_from_their_own_channels():
    conv = nn.Conv2d(4, 2, 1, groups=2, bias=True)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]).view(2, 2, 1, 1))
        conv.bias.zero_()
    reader = Reader("", Linear(conv), torch.arange(4)[:, None])
    keep = torch.tensor([True, False, True, False])
    mix = torch.tensor([[0.5, 7.0], [7.0, 0.25]])
    replace_(reader, keep, mix, torch.tensor([2.0, 3.0]))
    assert conv.weight.flatten().tolist() == [6, 0, 350, 0]
    assert conv.bias.tolist() == [20, 3000]


@pytest.mark.parametrize("build", [lambda: DigitsCNN(width=16), lambda: TinyViT(width=24)])
def test_a_target_is_met_and_proved_and_reuse_is_nearer_than_reduce(build):
    torch.manual_seed(0)
    model, data = build().eval(), inputs(32, 1, 8, 8)
    task = Task(model, data[0][0], batches=lambda: data, repair="none")
    found = {}
    for reuse in (True, False):
        result = reduce_reuse(task, Target("macs", 0.5), reuse=reuse)
        assert result.compacted.proof.difference < result.compacted.proof.tolerance
        found[reuse] = gap(result.model, model, data[1][0])
    dense = predict(trace(model, data[0][0]), {}).macs
    assert 0.49 * dense < predict(trace(result.model, data[0][0]), {}).macs <= 0.5 * dense
    assert found[True] < found[False]


def test_outputs_are_repaired_towards_the_network_as_it_was_given():
    torch.manual_seed(0)
    model, data = DigitsCNN(), inputs(64, 1, 8, 8)
    recalibrate_(model, data)
    task = Task(model.eval(), data[0][0], batches=lambda: data, repair="bn")
    small = reduce_reuse(task, Target("density", 0.5)).model.eval()
    x = torch.cat([x for x, _ in data])
    with torch.no_grad():
        was, now = model(x), small(x)
    assert ((now.mean(0) - was.mean(0)).abs() / was.std(0)).max() < 0.02
    assert (now.std(0) / was.std(0) - 1).abs().max() < 0.03


def test_data_are_needed():
    model = net()
    x = inputs(8, 3, 7, 7)[0][0]
    with pytest.raises(PruneError, match=r"activity is measured on inputs; pass Task\(batches="):
        reduce_reuse(Task(model, x), Target())
    with pytest.raises(PruneError, match="activity cannot be measured without inputs"):
        reduce_reuse(Task(model, x, batches=lambda: []), Target())
