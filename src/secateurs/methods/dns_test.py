import copy
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import OptionError, PruneError, UnknownNameError
from secateurs.data.load import from_loaders
from secateurs.methods.dns import dns, hysteresis, moments, most
from secateurs.methods.task import Target, Task
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

EPOCHS, STEPS = 4, 5


def batches():
    generator = Generator().manual_seed(0)
    x = torch.randn(STEPS, 16, 6, generator=generator)
    return [(b, (b[:, 0] > b[:, 1]).long()) for b in x]


DATA = from_loaders(batches())


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))


def task(folder, model=None, wrap=lambda train: train):
    train = Recovery(Stages(DATA, folder), "dns", Trainer(epochs=EPOCHS, lr=0.05))
    model = model or net()
    return Task(model, DATA.example, train=wrap(train), steps=EPOCHS * STEPS)


def test_a_weight_goes_and_returns_only_across_both_thresholds():
    kept, seen = torch.tensor([True]), []
    for size in (1.2, 0.95, 0.85, 1.05, 1.15):
        kept = hysteresis(torch.tensor([size]), kept, 1.0)
        seen.append(int(kept))
    assert seen == [1, 1, 0, 0, 1]


def test_exact_counts_are_those_of_the_thresholds_around_their_centre():
    size = torch.rand(200, generator=Generator().manual_seed(0))
    kept = torch.rand(200, generator=Generator().manual_seed(1)) < 0.3
    for keep in (1, 40, 199):
        marked, centre = most(size, kept, keep)
        assert int(marked.sum()) == keep
        assert torch.equal(marked, hysteresis(size, kept, centre * (1 - 1e-6)))
        for guess in (0.5 * centre, centre, 9.0):
            again, same = most(size, kept, keep, guess)
            assert torch.equal(again, marked)
            assert same == centre


def test_a_masked_weight_moves_by_the_gradient_it_would_have(tmp_path):
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0.5]]))
    x, rate, seen = torch.tensor([[3.0, 5.0]]), 0.1, []

    def train(model, *, name, after_step, **_):
        (model(x).sum() * 2).backward()
        stored = next(model.parameters())
        torch.optim.SGD([stored], lr=rate).step()
        seen.append(stored.detach().clone())
        after_step(1)

    dns(Task(model, x, train=train, steps=1), Target(), rule="moments", c=0.0, stop=0.5)
    # y = 2·3 + 0: the second weight is masked, yet follows ∂L/∂y · x₂.
    torch.testing.assert_close(seen[0], torch.tensor([[2 - 0.6, 0.5 - 1.0]]))


def test_without_surgery_it_is_plain_training(tmp_path):
    pruned = dns(task(tmp_path / "a"), Target("density", 1.0), stop=0.0)
    plain = net()
    task(tmp_path / "b").train(plain, name="surgery")
    for a, b in zip(pruned.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rule", ["density", "moments"])
def test_the_mask_is_frozen_after_the_surgery(tmp_path, rule):
    masks = {}

    def wrap(train):
        def watched(model, *, name, after_step):
            def watching(step):
                after_step(step)
                masks[step] = [b.clone() for n, b in model.named_buffers() if n.endswith("keep")]

            train(model, name=name, after_step=watching)

        return watched

    dns(task(tmp_path, wrap=wrap), Target("density", 0.3), rule=rule, c=0.3, stop=0.6)
    changes = {
        step: sum(int((a != b).sum()) for a, b in zip(masks[step], masks[step - 1], strict=True))
        for step in range(2, EPOCHS * STEPS + 1)
    }
    assert sum(changes[step] for step in range(2, 13)) > 0
    assert all(changes[step] == 0 for step in range(13, EPOCHS * STEPS + 1))


def test_the_density_rule_meets_the_target_exactly(tmp_path):
    model = net()
    pruned = dns(task(tmp_path, model), Target("density", 0.25), densities=("2.weight=0.5",))
    assert pruned.mask["0.weight"].sum() == 18
    assert pruned.mask["2.weight"].sum() == 12
    for name, value in pruned.model.named_parameters():
        assert not value[~pruned.mask[name]].any()


def test_thresholds_are_over_weights_and_biases_that_are_not_zero():
    values = {"w": torch.tensor([[1.0, -3.0, 0.0]]), "b": torch.tensor([2.0])}
    found = moments(values, {"w": ("w", "b")}, {"w": 3.0})
    assert found["w"] == pytest.approx(2 + 3 * (2 / 3) ** 0.5)
    assert moments(values, {"w": ("w", "b")}, {"w": -9.0})["w"] == 0.0


def test_biases_are_cut_by_their_layers_threshold(tmp_path):
    model = net()
    with torch.no_grad():
        model[0].bias.fill_(1e-6)
    pruned = dns(task(tmp_path, model), Target(), rule="moments", cs=("2.weight=-9",), c=1.0)
    assert not pruned.mask["0.bias"].all()
    assert pruned.mask["2.bias"].all()


@pytest.mark.parametrize("rule", ["density", "moments"])
def test_a_killed_surgery_goes_on_and_ends_the_same(tmp_path, rule):
    options = {"rule": rule, "c": 0.3, "gamma": 0.05}
    model = net()
    before = copy.deepcopy(model.state_dict())
    whole = dns(task(tmp_path / "whole", model), Target("density", 0.3), **options)

    def dying(train):
        def killed(model, *, name, after_step):
            def counting(step):
                after_step(step)
                if step == 2 * STEPS + 2:
                    raise KeyboardInterrupt

            train(model, name=name, after_step=counting)

        return killed

    with pytest.raises(KeyboardInterrupt):
        dns(task(tmp_path / "killed", model, dying), Target("density", 0.3), **options)
    resumed = dns(task(tmp_path / "killed", model), Target("density", 0.3), **options)
    assert "resumed after epoch 2" in _notes(tmp_path / "killed", model, options)
    for name, keep in whole.mask.items():
        assert torch.equal(resumed.mask[name], keep)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _notes(folder, model, options):
    again = task(folder, model)
    dns(again, Target("density", 0.3), **options)
    (history,) = again.train.stages.histories.values()
    return " ".join(history.notes)


def test_what_is_missing_is_said(tmp_path):
    job = task(tmp_path)
    with pytest.raises(PruneError, match="surgery acts while the model trains, and there is no"):
        dns(replace(job, train=None), Target())
    with pytest.raises(PruneError, match=r"has to know how long the training is; pass Task\(st"):
        dns(replace(job, steps=None), Target())
    with pytest.raises(UnknownNameError, match="unknown rule 'x'; use one of density, moments"):
        dns(job, Target(), rule="x")
    with pytest.raises(PruneError, match=r"unknown name 'fc' in c; use one of 0.weight, 2"):
        dns(job, Target(), rule="moments", cs=("fc=2",))
    with pytest.raises(PruneError, match=r"c '0.weight=x' is not NAME=NUMBER; write for example 0"):
        dns(job, Target(), rule="moments", cs=("0.weight=x",))
    with pytest.raises(OptionError, match=r"c .0\.weight=nan. is nan; use a finite number"):
        dns(job, Target(), cs=("0.weight=nan",))
