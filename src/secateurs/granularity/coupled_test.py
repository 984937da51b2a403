import pytest
import torch
from torch import Generator, nn

from secateurs.core.cut import score
from secateurs.core.errors import EvidenceError, ShapeError, StructureError, UnknownNameError
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.activations import activations
from secateurs.evidence.curvature import curvature
from secateurs.evidence.gradients import gradients
from secateurs.evidence.scales import scales
from secateurs.evidence.weights import filter_norms, weights
from secateurs.granularity.coupled import Coupled, channels, isomorphic
from secateurs.graph.graph import Bucket, Frozen, Graph, Slices
from secateurs.graph.trace import trace
from secateurs.models.table import MODELS
from secateurs.testing.laws import gathering_what_was_scattered_returns_the_decision


def plain(param, shape, dim, index=None):
    n = shape[dim]
    index = torch.arange(n).view(n, 1) if index is None else torch.tensor(index)
    return Slices(param, shape, (dim,), index)


def bucket(name, *slices, **more):
    return Bucket(name, torch.arange(slices[0].index.shape[0]), slices, **more)


def graph(shapes, *buckets, frozen=()):
    return Graph(shapes, {}, {}, {b.name: b for b in buckets}, frozen, (), module=None)


SHAPES = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4, 4)}
# Two channels out of `a`, flattened two positions each into the inputs of `b`.
PAIR = bucket(
    "a.weight:0",
    plain("a.weight", (2, 3), 0),
    plain("a.bias", (2,), 0),
    plain("b.weight", (4, 4), 1, [[0, 1], [2, 3]]),
)
SITE = Coupled(PAIR, SHAPES)

# Each of two groups keeps inputs of its own: weight (4, 3), units are (group, input).
GROUPED = Coupled(
    bucket("x:0", Slices("g", (2, 2, 3), (0, 2), torch.arange(6).view(6, 1)), among=3),
    {"g": (4, 3)},
)
SQUARE = Coupled(bucket("s:0", plain("s", (3, 3), 0), plain("s", (3, 3), 1)), {"s": (3, 3)})
SWAPPED = Coupled(
    bucket("t:0", Slices("t", (2, 5, 3), (2, 0), torch.arange(6).view(6, 1))), {"t": (10, 3)}
)


@pytest.mark.parametrize("site", [SITE, GROUPED, SQUARE, SWAPPED])
def test_gathering_what_was_scattered_returns_the_decision(site):
    gathering_what_was_scattered_returns_the_decision(site)


def test_a_row_is_all_that_leaves_with_a_unit():
    tensors = {
        "a.weight": torch.arange(6).view(2, 3),
        "a.bias": torch.tensor([60, 61]),
        "b.weight": torch.arange(100, 116).view(4, 4),
    }
    assert SITE.gather(tensors).tolist() == [
        [0, 1, 2, 60, 100, 104, 108, 112, 101, 105, 109, 113],
        [3, 4, 5, 61, 102, 106, 110, 114, 103, 107, 111, 115],
    ]


def test_dropping_a_unit_masks_all_its_positions():
    masks = SITE.scatter(torch.tensor([True, False]))
    assert masks["a.weight"].tolist() == [[True] * 3, [False] * 3]
    assert masks["a.bias"].tolist() == [True, False]
    assert masks["b.weight"].tolist() == [[True, True, False, False]] * 4


def test_both_axes_of_one_parameter_meet_by_and():
    mask = SQUARE.scatter(torch.tensor([True, False, True]))["s"]
    assert mask.tolist() == [[True, False, True], [False] * 3, [True, False, True]]


def test_grouped_inputs_leave_from_their_group_only():
    keep = torch.tensor([True, True, False, False, True, True])
    mask = GROUPED.scatter(keep)["g"]
    assert mask.tolist() == [[True, True, False]] * 2 + [[False, True, True]] * 2


def test_evidence_of_length_1_along_the_units_is_passed_over():
    inputs = {"a.weight": torch.ones(1, 3), "b.weight": torch.arange(4).view(1, 4)}
    assert SITE.gather(inputs).tolist() == [[0, 1], [2, 3]]
    outputs = {"a.weight": torch.tensor([[5], [6]]), "b.weight": torch.ones(4, 1)}
    assert SITE.gather(outputs).tolist() == [[5], [6]]
    grouped = {"g": torch.arange(12).view(4, 3)}
    assert GROUPED.gather(grouped).tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]


@pytest.mark.parametrize("tensors", [{}, {"c": torch.ones(1)}, {"a.weight": torch.ones(1, 3)}])
def test_no_evidence_about_the_units_is_an_error(tensors):
    with pytest.raises(
        EvidenceError, match=r"nothing was measured about the units of 'a.weight:0'"
    ):
        SITE.gather(tensors)


def test_evidence_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"evidence about 'a.weight' has shape \(3, 2\)"):
        SITE.gather({"a.weight": torch.ones(3, 2)})


def test_a_decision_of_another_length_is_refused():
    with pytest.raises(ShapeError, match=r"a decision about 'a.weight:0' has shape \(3,\)"):
        SITE.scatter(torch.ones(3, dtype=torch.bool))


def test_channels_are_sites_by_bucket_name():
    sites = channels(graph(SHAPES, PAIR))
    assert list(sites) == ["a.weight:0"]
    assert (sites["a.weight:0"].units, sites["a.weight:0"].among) == (2, None)
    assert sites["a.weight:0"].params == ("a.weight", "a.bias", "b.weight")


def test_patterns_match_buckets_layers_and_whatever_is_touched():
    other = bucket("c.weight:0", plain("c.weight", (2, 2), 0), kind="head")
    both = graph({**SHAPES, "c.weight": (2, 2)}, PAIR, other)
    for pattern in ("a", "a.weight", "a.weight:0", "b.weight:1"):
        assert list(channels(both, include=pattern)) == ["a.weight:0"]
        assert list(channels(both, exclude=pattern)) == ["c.weight:0"]
    assert list(channels(both, kind="head")) == ["c.weight:0"]


def test_a_pattern_that_matches_nothing_lists_the_buckets():
    with pytest.raises(
        UnknownNameError, match=r"exclude='b' matches nothing; there are a.weight:0"
    ):
        channels(graph(SHAPES, PAIR), exclude="b")


def test_a_model_without_units_says_why():
    rigid = graph({}, frozen=(Frozen("a.weight", 0, 2, "reaches the model's output"),))
    with pytest.raises(StructureError, match="can be removed: reaches the model's output"):
        channels(rigid)


def test_sites_of_the_same_axes_are_isomorphic():
    wide = bucket("w.weight:0", plain("w.weight", (8, 3), 0), plain("w.bias", (8,), 0))
    thin = bucket("t.weight:0", plain("t.weight", (2, 5), 0), plain("t.bias", (2,), 0))
    shapes = {"w.weight": (8, 3), "w.bias": (8,), "t.weight": (2, 5), "t.bias": (2,)}
    sites = channels(graph({**SHAPES, **shapes}, wide, PAIR, thin))
    assert list(isomorphic(sites).values()) == [("w.weight:0", "t.weight:0"), ("a.weight:0",)]


class Chain(nn.Module):
    """Three channels of `a` pass through a norm into `b`."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2)

    def forward(self, x):
        return self.b(self.norm(self.a(x)).relu())


def chain_sites(model):
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    along_0 = ("a.weight", "a.bias", "norm.weight", "norm.bias", "norm.running_mean")
    parts = [plain(name, shapes[name], 0) for name in along_0]
    parts.append(plain("b.weight", shapes["b.weight"], 1))
    return channels(graph(shapes, bucket("a.weight:0", *parts)))


def everything(model):
    x = torch.randn(4, 2, 5, 5, generator=Generator().manual_seed(0))
    batches, loss = [(x, x.mean())], lambda y, t: (y - t).square().mean()
    generator = Generator().manual_seed(0)
    return {
        "weight": weights(model),
        "scale": scales(model),
        "curvature": curvature(model, batches, loss, generator=generator),
        **gradients(model, batches, loss),
        **activations(model, batches),
    }


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"wanda"}))
def test_every_criterion_scores_coupled_channels(name):
    model = Chain()
    scores = score(chain_sites(model), CRITERIA[name], **everything(model))["a.weight:0"]
    assert scores.shape == (3,)
    assert bool((scores != 0).any())


def test_the_norm_of_a_channel_is_over_all_that_leaves_with_it():
    model = Chain()
    found = score(chain_sites(model), CRITERIA["l1"], weight=weights(model))["a.weight:0"]
    for c in range(3):
        parts = [model.a.weight[c], model.a.bias[c], model.norm.weight[c], model.norm.bias[c]]
        whole = sum(p.abs().sum() for p in (*parts, model.b.weight[:, c]))
        torch.testing.assert_close(found[c], whole.detach())


def test_filter_norms_see_the_producing_filter_alone():
    model = Chain()
    found = score(chain_sites(model), CRITERIA["l1"], weight=filter_norms(model))["a.weight:0"]
    torch.testing.assert_close(found, model.a.weight.detach().abs().flatten(1).sum(dim=1))


def test_a_channels_activation_is_the_root_mean_square_of_its_layers_output():
    model = Chain().eval()
    x = torch.randn(4, 2, 5, 5, generator=Generator().manual_seed(0))
    scores = score(chain_sites(model), CRITERIA["activation_rms"], **activations(model, [x]))
    expected = model.a(x).detach().square().mean(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(scores["a.weight:0"], expected)


def test_wanda_over_coupled_channels_is_refused():
    model = Chain()
    with pytest.raises(ShapeError, match="use sites over single parameters"):
        score(chain_sites(model), CRITERIA["wanda"], **everything(model))


@pytest.mark.parametrize("name", ["grouped", "digits_cnn", "tiny_vit"])
def test_numbers_are_spread_over_the_positions_that_scatter_masks(name):
    grouped = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 3))
    model = grouped if name == "grouped" else MODELS[name].factory()
    for site in channels(trace(model, torch.zeros(2, 1, 8, 8))).values():
        keep = torch.arange(site.units) % 2 == 0
        for param, mask in site.scatter(keep).items():
            assert torch.equal(site.spread(keep.float())[param] > 0, mask)
        spread = site.spread(torch.full((site.units,), 3.0))
        assert all(set(laid.unique().tolist()) <= {1.0, 3.0, 9.0} for laid in spread.values())
