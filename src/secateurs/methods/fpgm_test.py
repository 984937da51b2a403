import pytest
import torch
from torch import Generator, nn

from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.methods.channels import Channels, agreement, filters, removable, share
from secateurs.methods.fpgm import fpgm, mixed
from secateurs.methods.task import Target, Task
from secateurs.methods.where import places
from secateurs.models.create import create
from secateurs.models.digits import DigitsCNN

X = torch.randn(2, 1, 8, 8, generator=Generator().manual_seed(0))


def net(width=8, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitsCNN(width=width).eval()


class Plain(nn.Module):
    """Five filters of two weights each, then a reader."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 5, 1, bias=False), nn.Conv2d(5, 3, 1)

    def forward(self, x):
        return self.b(self.a(x).relu())


def plain(rows):
    model = Plain().eval()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor(rows)[:, :, None, None])
    return model


SQUARE = [[0.0, 0.0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]
INPUT = torch.randn(1, 2, 4, 4, generator=Generator().manual_seed(0))


def test_only_the_producing_filters_are_seen():
    model = net()
    sites = channels(trace(model, X))
    rows = filters(sites, model)["stem.0.weight:0"].gather(weights(model))
    writers = [model.stem[0].weight, model.block1.conv2[0].weight]
    assert torch.equal(rows, torch.cat([w.detach().flatten(1) for w in writers], dim=1))


def test_the_filter_at_the_median_leaves_first():
    pruned = fpgm(Task(plain(SQUARE), INPUT), Target("density", 0.8))
    assert pruned.model.a.weight.flatten(1).tolist() == SQUARE[:4]
    assert pruned.compacted.removed == {"a.weight:0": 1}


def test_mix_cuts_by_norm_first_and_by_distance_among_the_rest():
    # Twice the middle, so the corner at the origin is shortest but not nearest to the others.
    rows = [[0.0, 0.0], [2, 0], [0, 2], [2, 2], [1, 1]]
    model = plain(rows)
    sites = filters(channels(trace(model, INPUT)), model)
    found = {
        mix: mixed(sites, weights(model), {"a.weight:0": 3}, mix)["a.weight:0"].tolist()
        for mix in (0.0, 0.5, 1.0)
    }
    assert found[0.0] == [True, True, True, False, False]
    assert found[0.5] == [False, True, True, True, False]
    assert found[1.0] == [False, True, True, True, False]


def test_mix_counts_in_every_pool_alike():
    class Pools:
        units, among = 4, 2

        def gather(self, values):
            return values["w"]

    rows = torch.tensor([[1.0], [9.0], [5.0], [2.0]])
    found = mixed({"p": Pools()}, {"w": rows}, {"p": 2}, 1.0)["p"]
    assert found.tolist() == [False, True, True, False]


def test_the_overlap_with_l2_is_reported():
    (note,) = fpgm(Task(net(), X), Target("density", 0.5)).notes
    assert note.startswith("fpgm against l2: ")
    assert "of the cut units are the same, Spearman " in note


def test_agreement_is_counted_over_the_cut_units():
    class One:
        units, among = 4, None

    a, b = torch.tensor([4.0, 3, 2, 1]), torch.tensor([4.0, 1, 2, 3])
    one, other = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 0, 1]).bool()
    found = agreement({"s": One()}, {"s": a}, {"s": b}, {"s": one}, {"s": other})
    assert found.overlap == 0.5
    assert found.correlation == pytest.approx(0.2)
    assert str(found) == "50% of the cut units are the same, Spearman 0.20"
    same = agreement({"s": One()}, {"s": a}, {"s": a}, {"s": one}, {"s": one})
    assert (same.overlap, same.correlation) == (1.0, pytest.approx(1.0))


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_uniform_shares_meet_a_cost_with_like_fractions_everywhere(kind):
    model = net(width=32)
    place = removable(model, X)
    scores = {n: torch.rand(s.units, generator=Generator().manual_seed(1)) * (i + 1) ** 5
              for i, (n, s) in enumerate(place.sites.items())}  # fmt: skip
    quota = share(place, scores, Target(kind, 0.5), "uniform")
    fractions = [quota[n] / s.units for n, s in place.sites.items()]
    assert max(fractions) - min(fractions) <= 1 / 16
    uneven = share(place, scores, Target(kind, 0.5), "global", normalise="none")
    fractions = [uneven[n] / s.units for n, s in place.sites.items()]
    assert max(fractions) - min(fractions) > 0.5


def test_places_rank_within_pools_and_settle_ties_by_index():
    class Two:
        units, among = 4, 2

    found = places({"s": Two()}, {"s": torch.tensor([5.0, 5.0, 1.0, 2.0])})
    assert found["s"].tolist() == [1.0, 0.5, 0.5, 1.0]


def test_what_is_excluded_stays_whole():
    place = removable(net(), X, exclude=("stem.*",))
    assert isinstance(place, Channels)
    assert not any(name.startswith("stem") for name in place.sites)


def test_the_task_s_model_is_not_changed():
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruned = fpgm(Task(model, X), Target("macs", 0.5))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert pruned.compacted.proof.difference < 1e-8


@pytest.mark.parametrize(
    ("depth", "rate", "paper"), [(20, 0.3, 42.2), (20, 0.4, 54.0), (32, 0.3, 41.5), (32, 0.4, 53.2)]
)
def test_the_papers_count_of_macs_takes_streams_as_whole_but_for_the_first(depth, rate, paper):
    """Table 1: outputs of every convolution shrink, inputs only inside blocks and after the stem.

    Removing streams too, as we do, saves more at the same rate.
    """
    graph = trace(create(f"resnet{depth}", classes=10, in_channels=3), torch.zeros(1, 3, 32, 32))
    inside = torch.zeros(graph.units + 1, dtype=torch.bool)
    for name, bucket in graph.buckets.items():
        inside[bucket.ids] = ".conv1." in name
    left = total = 0.0
    for i, product in enumerate(graph.contractions):
        macs = product.factor * len(product.out) * len(product.inner)
        last = i == len(graph.contractions) - 1
        reads_less = i == 1 or bool(inside[product.inner].all())
        total += macs
        left += macs if last else macs * (1 - rate) * (1 - rate if reads_less else 1)
    assert 100 * (1 - left / total) == pytest.approx(paper, abs=0.06)
