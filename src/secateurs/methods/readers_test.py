import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.granularity.coupled import channels
from secateurs.graph.cost import predict
from secateurs.graph.trace import trace
from secateurs.methods.readers import Reader, even, readers, shares
from secateurs.methods.task import Target
from secateurs.methods.where import Where
from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.recovery.rows import Linear


def found(model, x):
    sites = channels(trace(model.eval(), x))
    return sites, readers(model, sites)


def test_a_residual_stream_is_read_by_everything_behind_it():
    _, reading = found(DigitsCNN(width=8), torch.zeros(2, 1, 8, 8))
    paths = {name: [r.path for r in who] for name, who in reading.items()}
    assert paths == {
        "stem.0.weight:0": ["block1.conv1.0", "down.0"],
        "block1.conv1.0.weight:0": ["block1.conv2.0"],
        "down.0.weight:0": ["block2.conv1.0", "fc"],
        "block2.conv1.0.weight:0": ["block2.conv2.0"],
    }


def test_a_flattened_channel_is_many_inputs():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 5))
    _, reading = found(model, torch.zeros(2, 1, 6, 6))
    (reader,) = reading["0.weight:0"]
    assert reader.channels.tolist() == torch.arange(48).view(3, 16).tolist()
    keep = torch.tensor([True, False, True])
    assert reader.columns(keep)[0].view(3, 16).all(dim=1).tolist() == keep.tolist()


@pytest.mark.parametrize(
    "build",
    [
        lambda: DigitsCNN(width=8),
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 4, 1),
            nn.Flatten(),
        ),
    ],
)
def test_what_is_no_longer_read_may_as_well_be_zero(build):
    torch.manual_seed(0)
    model, x = build(), torch.randn(2, 1, 8, 8)
    sites, reading = found(model, x)
    for name, who in reading.items():
        keep = torch.ones(sites[name].units, dtype=torch.bool)
        keep[sites[name].units // 2] = False
        for reader in who:
            columns = reader.columns(keep)
            assert torch.equal(columns, reader.units_of_columns() != sites[name].units // 2)
            before = reader.linear.matrix()
            reader.clear_(keep)
            expected = torch.where(columns[:, None], before, 0.0)
            assert torch.equal(reader.linear.matrix(), expected)


def test_groups_are_told_apart():
    conv = nn.Conv2d(4, 2, 2, groups=2)
    reader = Reader("", Linear(conv), torch.tensor([[1], [2]]))
    keep = torch.tensor([False, True])
    assert reader.columns(keep).tolist() == [[True] * 4 + [False] * 4, [True] * 8]
    assert reader.units_of_columns().tolist() == [[-1] * 4 + [0] * 4, [1] * 4 + [-1] * 4]
    assert reader.by_channel(torch.tensor([5.0, 7.0])).tolist() == [1, 5, 7, 1]
    x = torch.randn(1, 4, 3, 3)
    reader.clear_(keep)
    zeroed = x.clone()
    zeroed[:, 1] = 0
    torch.testing.assert_close(conv(x), F.conv2d(zeroed, conv.weight, conv.bias, groups=2))


@pytest.mark.parametrize("build", [DigitsCNN, TinyViT])
def test_every_site_gives_the_same_share_to_a_target(build):
    model, x = build().eval(), torch.zeros(2, 1, 8, 8)
    graph = trace(model, x)
    place = Where(channels(graph), graph)
    counts = shares(place, Target("macs", 0.4), {})
    kept = [counts[name] / site.units for name, site in place.sites.items()]
    assert max(kept) - min(kept) < 0.3
    decision = {
        name: scores >= scores.sort(descending=True).values[counts[name] - 1]
        for name, scores in even(place.sites).items()
        if place.sites[name].among is None
    }
    if len(decision) == len(counts):
        assert predict(graph, decision).macs <= 0.4 * predict(graph, {}).macs
    half = shares(place, Target("density", 0.5), {next(iter(counts)): 1.0})
    assert half[next(iter(counts))] == place.sites[next(iter(counts))].units
