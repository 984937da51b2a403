import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.methods.magnitude import magnitude
from secateurs.methods.table import METHODS, method, options_of
from secateurs.methods.task import Target, Task
from secateurs.methods.where import named

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def weights(model):
    return [m.weight.detach() for m in model if isinstance(m, nn.Linear)]


def test_exactly_the_largest_weights_of_each_layer_stay():
    model = net()
    pruned = magnitude(Task(model, X), Target("density", 0.25))
    for dense, left in zip(weights(model), weights(pruned.model), strict=True):
        keep = round(0.25 * dense.numel())
        bound = dense.abs().flatten().sort(descending=True).values[keep - 1]
        assert torch.equal(left, dense * (dense.abs() >= bound))


def test_ranked_globally_the_largest_of_the_scaled_weights_stay():
    model = net()
    pruned = magnitude(Task(model, X), Target("density", 0.5), ranking="global")
    scaled = torch.cat([(w.abs() / w.abs().mean()).flatten() for w in weights(model)])
    left = torch.cat([w.flatten() for w in weights(pruned.model)]) != 0
    assert int(left.sum()) == round(0.5 * left.numel())
    assert scaled[left].min() >= scaled[~left].max()


def test_channels_of_least_norm_leave_with_what_reads_them():
    model = net()
    pruned = magnitude(Task(model, X), Target("density", 0.5), granularity="out_channel")
    first, second, _ = weights(model)
    bias = model[0].bias.detach()
    norm = first.abs().sum(dim=1) + second.abs().sum(dim=0) + bias.abs()
    keep = norm.argsort(descending=True)[:4].sort().values
    assert torch.equal(pruned.model[0].weight, first[keep])
    assert pruned.model[2].weight.shape == (4, 4)
    assert pruned.compacted.proof.difference <= pruned.compacted.proof.tolerance


def test_rounds_train_in_between_and_the_last_meets_the_target():
    names, left = [], []

    def train(model, *, name, **_):
        names.append(name)
        left.append(sum(int((m.weight != 0).sum()) for m in model if isinstance(m, nn.Linear)))

    magnitude(Task(net(), X, train), Target("density", 0.25), rounds=3, schedule="linear")
    assert names == ["round-1", "round-2", "recover"]
    assert left == [36 + 48 + 18, 24 + 32 + 12, 12 + 16 + 6]


def test_layers_may_keep_a_density_of_their_own():
    words = ("0.weight=0.5", "4.weight=1")
    pruned = magnitude(Task(net(), X), Target("density", 0.25), densities=words)
    assert [int((w != 0).sum()) for w in weights(pruned.model)] == [24, 16, 24]


def test_the_users_model_stays_as_it_was():
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    magnitude(Task(model, X), Target("density", 0.1))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("target", "options", "error", "says"),
    [
        (Target("macs", 0.5), {}, BudgetError, "--macs 0.5 cannot be met"),
        (Target(), {"granularity": "atom"}, UnknownNameError, "unknown granularity 'atom'"),
        (Target(), {"norm": "l9"}, UnknownNameError, "unknown norm 'l9'; use one of l1, l2"),
        (Target(), {"schedule": "soon"}, UnknownNameError, "unknown schedule 'soon'"),
        (Target(), {"ranking": "luck"}, UnknownNameError, "unknown ranking 'luck'"),
        (
            Target(),
            {"granularity": "out_channel", "ranking": "erk"},
            BudgetError,
            "use --ranking uniform or global",
        ),
    ],
)
def test_what_cannot_be_is_refused(target, options, error, says):
    with pytest.raises(error, match=says):
        magnitude(Task(net(), X), target, **options)


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("fc9=0.1", UnknownNameError, "unknown site 'fc9'"),
        ("fc1=much", BudgetError, "write for example fc1=0.1"),
        ("fc1", BudgetError, "not NAME=FRACTION"),
        ("fc1=2", BudgetError, "density 2 is not a fraction"),
    ],
)
def test_densities_by_name_are_read_or_refused(word, error, says):
    with pytest.raises(error, match=says):
        named([word], ["fc1"])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_cites_its_source_and_has_defaults_for_its_options(name):
    about = METHODS[name].__doc__
    assert about
    assert "Source:" in about or "arXiv:" in about or name == "planned"
    assert all(p.default is not p.empty for p in options_of(METHODS[name]).values())
    assert method(name, {}) is METHODS[name]


def test_a_fraction_to_keep_lies_above_zero():
    with pytest.raises(BudgetError, match="unknown target 'flops'; use one of density, params,"):
        Target("flops", 0.5)
    with pytest.raises(BudgetError, match="macs 0 is not a fraction to keep"):
        Target("macs", 0)
