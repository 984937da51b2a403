import json
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import BudgetError, EvidenceError, UnknownNameError
from secateurs.core.mask import Mask
from secateurs.data.load import from_loaders
from secateurs.granularity.grains import elements
from secateurs.methods import sensitivity
from secateurs.methods.dropout import dropout_rates, thinned
from secateurs.methods.han import han, thresholds
from secateurs.methods.sensitivity import Curve, scan, spread, tolerated
from secateurs.methods.sensitivity_plot import draw
from secateurs.methods.task import Target, Task
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages


def batches():
    generator = Generator().manual_seed(0)
    x = torch.randn(4, 32, 1, 6, 6, generator=generator)
    return [(b, (b[:, 0, 0, 0] > b[:, 0, 2, 3]).long()) for b in x]


DATA = from_loaders(batches())


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(8, 2),
        )  # fmt: skip


@pytest.fixture
def task(tmp_path):
    train = Recovery(Stages(DATA, tmp_path / "stages"), "han", Trainer(epochs=1, lr=0.05))
    return Task(net(), DATA.example, train=train, batches=batches, folder=tmp_path / "kept")


def test_every_rule_of_density_meets_its_target_exactly(task):
    for rule in ("sensitivity", "density"):
        mask = han(replace(task, train=None), Target("density", 0.2), rule=rule).mask
        assert mask.kept == pytest.approx(0.2 * mask.total, abs=1)


def test_quality_cuts_below_that_many_standard_deviations(task):
    pruned = han(
        replace(task, train=None), Target(), rule="quality", quality=1.5, qualities=("6.weight=0",)
    )
    dense = task.model[3].weight
    at = 1.5 * float(dense.detach().std(correction=0))
    assert torch.equal(pruned.mask["3.weight"], dense.abs() >= at)
    assert pruned.mask["6.weight"].all()


def test_the_deviation_is_of_the_weights_that_are_asked_for():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -1.0, 0.0, 0.0]]))
    mask = Mask({"weight": torch.tensor([[True, True, False, False]])})
    dense = {"weight": 7.0}
    found = {
        std: thresholds(model, {"weight": 2.0}, dense, std, mask)["weight"]
        for std in ("dense", "kept", "all")
    }
    assert found == {"dense": 14.0, "kept": 4.0, "all": pytest.approx(2 * 1.5)}
    assert spread(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 0.0


def test_survivors_are_retrained_from_where_they_are_and_the_cut_stay_zero(task):
    seen = []

    def train(model, *, name, **_):
        seen.append((name, model[3].weight.detach().clone()))

    pruned = han(replace(task, train=train), Target("density", 0.3), rule="density")
    assert [name for name, _ in seen] == ["round-1", "recover"]
    last = seen[-1][1]
    keep = pruned.mask["3.weight"]
    assert torch.equal(last[keep], task.model[3].weight[keep])
    assert not last[~keep].any()


def test_linear_and_convolution_layers_are_retrained_in_turn(task):
    moved = []

    def wrap(model, *, name, **_):
        before = {n: p.clone() for n, p in model.named_parameters()}
        task.train(model, name=name)
        moved.append((name, {n.split(".")[0] for n, p in model.named_parameters()
                             if not torch.equal(p, before[n])}))  # fmt: skip

    pruned = han(replace(task, train=wrap), Target("density", 0.5), rule="density",
                 rounds=1, alternate=True)  # fmt: skip
    assert moved == [("recover-linear", {"3", "6"}), ("recover-conv", {"0"})]
    assert all(p.requires_grad for p in pruned.model.parameters())


@pytest.mark.parametrize(("kind", "value"), [("l1", 0.1 * 6.0), ("l2", 0.1 * 14 / 2)])
def test_the_penalty_is_of_weights_and_not_of_biases(task, kind, value):
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
    seen = []

    def train(model, *, name, penalty):
        seen.append(float(penalty(model)))

    job = Task(model, torch.ones(1, 3), train=train)
    han(job, Target("density", 1.0), rule="density", rounds=1, penalty=kind, strength=0.1)
    assert seen == [pytest.approx(value)]


def test_dropout_falls_with_the_root_of_the_connections_that_follow(task):
    model = net()
    mask = {"3.weight": torch.zeros(8, 64), "6.weight": torch.arange(16).view(2, 8) < 4}
    rates = dropout_rates(model, mask, DATA.example)
    assert rates == {"5": 0.5 * 0.25**0.5}
    with thinned(model, rates):
        assert model[5].p == 0.25
    assert model[5].p == 0.5
    assert dropout_rates(model, {}, DATA.example) == {"5": 0.5}


def test_retraining_happens_under_the_weaker_dropout(task):
    seen = []

    def train(model, *, name, **_):
        seen.append(model[5].p)

    pruned = han(replace(task, train=train), Target("density", 0.25), rule="density", rounds=1)
    assert seen == [0.25]
    assert pruned.model[5].p == 0.5


def test_neurons_without_inputs_or_outputs_leave_physically(task):
    model = net()
    with torch.no_grad():
        model[3].weight[0] = 0  # no inputs
        model[6].weight[:, 1] = 0  # no outputs
        model[3].weight[:, 16:32] = 0  # nobody reads channel 1 of the convolution
    job = replace(task, model=model)
    small = han(job, Target(), rule="quality", quality=1e-9, rounds=1, neurons=True)
    shapes = {n: tuple(p.shape) for n, p in small.model.named_parameters() if p.dim() > 1}
    assert list(shapes.values()) == [(3, 1, 3, 3), (6, 48), (2, 6)]
    assert small.compacted is not None


SITES = elements(net())
SCORES = {name: w.detach().abs().flatten() for name, w in net().named_parameters() if name in SITES}


def test_a_scan_prunes_one_layer_at_a_time(tmp_path):
    model = net()
    curves = scan(model, SITES, SCORES, batches, densities=(0.5, 0.01))
    assert {name: c.densities for name, c in curves.items()} == dict.fromkeys(SITES, (1, 0.5, 0.01))
    assert len({c.losses[0] for c in curves.values()}) == 1
    twin = net()
    keep = SCORES["3.weight"] >= SCORES["3.weight"].sort().values[256]
    with torch.no_grad():
        twin[3].weight.mul_(keep.view(8, 64))
    expected = scan(twin, SITES, SCORES, batches, densities=())["3.weight"]
    assert curves["3.weight"].losses[1] == pytest.approx(expected.losses[0])
    assert curves["3.weight"].accuracies[1] == expected.accuracies[0]


def test_a_scan_is_kept_layer_by_layer_and_goes_on(tmp_path, monkeypatch):
    model, done = net(), []
    evaluate = sensitivity.evaluate
    monkeypatch.setattr(sensitivity, "evaluate", lambda *a: done.append(1) or evaluate(*a))
    first = scan(model, SITES, SCORES, batches, densities=(0.5,), folder=tmp_path)
    assert len(done) == 1 + 3
    (tmp_path / "3.weight.json").unlink()
    (tmp_path / "6.weight.json").write_text("{")
    assert scan(model, SITES, SCORES, batches, densities=(0.5,), folder=tmp_path) == first
    assert len(done) == 1 + 3 + 1 + 2
    scan(net(seed=1), SITES, SCORES, batches, densities=(0.5,), folder=tmp_path)
    assert len(done) == 1 + 3 + 1 + 2 + 1 + 3
    assert json.loads((tmp_path / "0.weight.json").read_text())["densities"] == [1.0, 0.5]


def test_a_scan_is_drawn_one_line_a_layer(task, tmp_path):
    said = []
    job = replace(task, folder=tmp_path, say=said.append, train=None)
    han(job, Target("density", 0.5), rounds=1)
    drawn = (tmp_path / "sensitivity" / "curves.svg").read_text()
    assert all(f">{name}</text>" in drawn for name in SITES)
    assert said[-1] == f"sensitivity of every layer: {tmp_path / 'sensitivity' / 'curves.svg'}"
    again = draw({name: Curve((1.0, 0.5), (0.0, 1.0), (0.9, 0.8)) for name in ("a", "b")})
    assert again.count("stroke-linecap: square") >= 2
    assert again == draw({n: Curve((1.0, 0.5), (0.0, 1.0), (0.9, 0.8)) for n in ("a", "b")})


def test_the_density_for_a_rise_never_climbs_back():
    curve = Curve((1.0, 0.5, 0.25, 0.0), (1.0, 2.0, 1.5, 4.0), (1.0,) * 4)
    assert curve.density_at(0.5) == 0.75
    assert curve.density_at(1.0) == 0.25
    assert curve.density_at(2.0) == pytest.approx(0.125)
    assert curve.density_at(9.0) == 0.0


def test_every_layer_costs_the_same_and_the_target_is_met():
    hard = Curve((1.0, 0.5, 0.0), (0.0, 4.0, 8.0), (1.0,) * 3)
    easy = Curve((1.0, 0.5, 0.0), (0.0, 1.0, 2.0), (1.0,) * 3)
    two = {"a": SITES["3.weight"], "b": SITES["3.weight"]}
    found = tolerated(two, {"a": hard, "b": easy}, 0.5)
    assert sum(found.values()) == 512
    # 8 (1 - x) = 2 (1 - y) and x + y = 1: x = 0.8, y = 0.2.
    assert found["a"] == pytest.approx(0.8 * 512, abs=2)


def test_what_cannot_be_done_is_said(task):
    stops = Curve((1.0, 0.5), (0.0, 1.0), (1.0,) * 2)
    with pytest.raises(BudgetError, match=r"reaches 256 of 512 units, and density 0.1 asks for 51"):
        tolerated({"a": SITES["3.weight"]}, {"a": stops}, 0.1)
    with pytest.raises(EvidenceError, match=r"sensitivity is measured on data; pass Task\(batches"):
        han(replace(task, batches=None), Target())
    with pytest.raises(BudgetError, match=r"sensitivity of layers says .* multiples of 4 cannot"):
        han(task, Target(multiple_of=4))
    with pytest.raises(UnknownNameError, match="unknown rule 'x'; use one of sensitivity, dens"):
        han(task, Target(), rule="x")
    with pytest.raises(UnknownNameError, match="unknown std 'x'; use one of dense, kept, all"):
        han(task, Target(), std="x")
    with pytest.raises(UnknownNameError, match="unknown penalty 'x'; use one of l2, l1"):
        han(task, Target(), penalty="x")
