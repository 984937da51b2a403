import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.core.errors import BudgetError, PruneError
from secateurs.methods.inbound import contributions, in_order, inbound
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN
from secateurs.recovery.rows import Linear


def inputs(*shape, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator), None) for _ in range(n)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("statistic", ["norm", "element"])
def test_contributions_are_those_of_maps_written_down(groups, statistic):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=groups).double()
    data = [(x.double(), None) for x, _ in inputs(5, 4, 7, 6)]
    spread, mean = contributions(conv, data, Linear(conv), statistic)
    x = torch.cat([x for x, _ in data])
    for t in range(6):
        for s in range(4 // groups):
            channel = s + (t // (6 // groups)) * (4 // groups)
            maps = F.conv2d(
                x[:, channel : channel + 1], conv.weight[t : t + 1, s : s + 1], stride=2, padding=1
            )
            if statistic == "norm":
                expected = maps.flatten(1).norm(dim=1).var(correction=0)
            else:
                expected = (maps - maps.mean()).square().sum(dim=(1, 2, 3)).mean()
            assert float(spread[t, s]) == pytest.approx(float(expected), rel=1e-6)
            assert float(mean[t, s]) == pytest.approx(float(maps.mean()), rel=1e-6)


@pytest.mark.parametrize("statistic", ["norm", "element"])
def test_constant_inputs_are_disconnected_first_and_folded(statistic):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 1.5
    data = inputs(8, 3, 6, 6)
    task = Task(model, data[0][0], batches=lambda: data)
    result = inbound(task, Target("density", 0.75), statistic=statistic, exclude=("0.weight",))
    assert not result.mask["2.weight"][:, 2].any()
    assert result.mask["2.weight"][:, [0, 1, 3]].all()
    torch.testing.assert_close(result.model(data[0][0]), model(data[0][0]))


def test_every_filter_keeps_as_many_inputs_and_the_model_is_masked():
    torch.manual_seed(0)
    model, data = DigitsCNN(width=8).eval(), inputs(16, 1, 8, 8)
    result = inbound(
        Task(model, data[0][0], batches=lambda: data),
        Target("density", 0.5),
        exclude=("fc.weight",),
    )
    for name, keep in result.mask.items():
        kernels = keep.flatten(2).all(dim=2)
        assert torch.equal(kernels, keep.flatten(2).any(dim=2))
        assert set(kernels.sum(dim=1).tolist()) == {max(1, kernels.shape[1] // 2)}
        assert not result.model.get_parameter(name)[~keep].any()


def test_layers_are_cut_in_the_order_they_run_and_trained_between():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x))

    parts, data = [], inputs(8, 4)

    def train(model, *, name, epochs=None, after_step=None, penalty=None):
        parts.append((name, epochs))

    task = Task(Net(), data[0][0], train=train, batches=lambda: data)
    inbound(task, Target("density", 0.5), layer_epochs=2)
    assert parts == [("after-first", 2), ("after-last", 2), ("recover", None)]
    assert in_order(Net(), data, {"a": "last", "b": "first"}) == ["b", "a"]


def test_what_cannot_be_is_refused():
    model, data = nn.Linear(4, 2), inputs(8, 4)
    with pytest.raises(PruneError, match=r"contributions are measured on inputs; pass Task\(batch"):
        inbound(Task(model, data[0][0]), Target())
    with pytest.raises(BudgetError, match="masks leave parameters and MACs as they are"):
        inbound(Task(model, data[0][0], batches=lambda: data), Target("macs", 0.5))
    with pytest.raises(PruneError, match="a layer's contributions need inputs, and none reached"):
        contributions(model, [], Linear(model), "norm")
