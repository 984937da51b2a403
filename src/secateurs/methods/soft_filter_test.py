from dataclasses import replace

import pytest
import torch
from torch import Generator

from secateurs.core.errors import BudgetError, PruneError
from secateurs.data.load import from_loaders
from secateurs.evidence.weights import weights
from secateurs.methods.channels import filters, removable
from secateurs.methods.soft_filter import caps, returned, soft_filter, zero_
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

X = torch.randn(96, 1, 8, 8, generator=Generator().manual_seed(0))
DATA = from_loaders([(x, (x[:, 0, 0, 0] > 0).long()) for x in X.split(16)])
EPOCHS, STEPS = 3, 6


def net(width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DigitsCNN(width=width)


def task(folder, wrap=lambda train: train, **changes):
    train = Recovery(Stages(DATA, folder), "soft", Trainer(epochs=EPOCHS, lr=0.05))
    job = Task(net(), X[:1], train=wrap(train), batches=lambda: DATA.train, steps=EPOCHS * STEPS)
    return replace(job, **changes)


def watching(seen):
    def wrap(train):
        def watched(model, *, name, after_step, **_):
            def after(step):
                after_step(step)
                filters = model.block1.conv1[0].weight.detach().flatten(1)
                seen[step] = torch.linalg.vector_norm(filters, dim=1).clone()

            train(model, name=name, after_step=after)

        return watched

    return wrap


def test_zeroed_filters_learn_on_until_the_choice_is_held(tmp_path):
    seen = {}
    pruned = soft_filter(task(tmp_path, watching(seen)), Target("density", 0.5), rerank=3, stop=0.5)
    # Ranked after steps 3, 6 and 9 of 18.
    assert [int((seen[step] == 0).sum()) for step in (3, 6, 9)] == [4, 4, 4]
    assert not bool((seen[4] == 0).any() | (seen[8] == 0).any())
    assert all(torch.equal(seen[step] == 0, seen[9] == 0) for step in range(9, 19))
    assert pruned.compacted.removed["block1.conv1.0.weight:0"] == 4
    kept = pruned.compacted.kept["block1.conv1.0.weight"][0]
    assert torch.equal(kept, seen[18] > 0)


def test_a_filter_that_has_grown_is_chosen_again(tmp_path):
    said = []
    zeroed = {}

    def wrap(train):
        def grown(model, *, name, after_step, **_):
            def after(step):
                weight = dict(weights(model))["block1.conv1.0.weight"]
                if step == 12:  # ranked at 4, 8 and 12, after which no step can undo it
                    length = weight.flatten(1).norm(dim=1)
                    weak = zeroed["rows"][0]
                    weight[[i for i in range(8) if i not in zeroed["rows"]]] *= 0.1
                    weight[weak] *= length.max() / length[weak]
                after_step(step)
                if step == 8:
                    rows = (weight.flatten(1).norm(dim=1) == 0).nonzero()
                    zeroed["rows"] = rows.flatten().tolist()

            train(model, name=name, after_step=after)

        return grown

    job = task(tmp_path, wrap, say=said.append)
    pruned = soft_filter(job, Target("density", 0.5), rerank=3, stop=12 / 18)
    assert pruned.compacted.kept["block1.conv1.0.weight"][0][zeroed["rows"][0]]
    assert said[1].startswith("ranked at step 12: ")
    assert said[1].endswith("zeroed filters have come back")


def test_filters_are_capped_at_their_own_length_or_the_shortest_kept_ones():
    model = net()
    sites = filters(removable(model, X[:1]).sites, model)
    name = "block1.conv1.0.weight"
    with torch.no_grad():
        for i in range(8):
            model.block1.conv1[0].weight[i] /= model.block1.conv1[0].weight[i].norm() / (i + 1)
    decision = {n: torch.arange(s.units) >= s.units // 2 for n, s in sites.items()}
    limits = caps(sites, weights(model), decision)
    with torch.no_grad():
        model.block1.conv1[0].weight.mul_(100)
    for limit in limits:
        limit.hold_(weights(model))
    lengths = model.block1.conv1[0].weight.flatten(1).norm(dim=1)
    assert name in {limit.param for limit in limits}
    assert lengths.tolist() == pytest.approx([5, 5, 5, 5, 5, 6, 7, 8])


def test_zeroing_touches_what_the_mask_drops_and_nothing_else():
    values = {"w": torch.ones(2, 2), "v": torch.ones(1)}
    zero_(values, {"w": torch.tensor([[True, False], [True, True]]), "u": torch.tensor([False])})
    assert values["w"].tolist() == [[1, 0], [1, 1]]
    assert values["v"].tolist() == [1]


def test_what_came_back_is_counted_over_what_was_cut():
    before, after = torch.tensor([1, 0, 0]).bool(), torch.tensor([0, 0, 1]).bool()
    assert returned({"a": before}, {"a": after}) == "1 of 2 zeroed filters have come back"


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    def dying(train):
        def killed(model, *, name, after_step, **_):
            def after(step):
                after_step(step)
                if step == STEPS + 2:
                    raise KeyboardInterrupt

            train(model, name=name, after_step=after)

        return killed

    options = {"criterion": "fpgm", "rerank": 4}
    whole = soft_filter(task(tmp_path / "a"), Target("macs", 0.5), **options)
    with pytest.raises(KeyboardInterrupt):
        soft_filter(task(tmp_path / "b", dying), Target("macs", 0.5), **options)
    resumed = soft_filter(task(tmp_path / "b"), Target("macs", 0.5), **options)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(PruneError, match="soft filter pruning acts while the model trains"):
        soft_filter(task(tmp_path, train=None), Target())
    with pytest.raises(BudgetError, match="cannot rank 10 times in 4 of 18 steps; use rerank of 1"):
        soft_filter(task(tmp_path), Target(), stop=0.2)
