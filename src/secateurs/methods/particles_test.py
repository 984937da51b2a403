import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, PruneError, UnknownNameError
from secateurs.methods.particles import particles
from secateurs.methods.task import Target, Task


class Parts(nn.Module):
    """Eight kernels over eight inputs, of which the label needs four."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 1, 2, bias=False)
        with torch.no_grad():
            self.mix.weight.fill_(1.0)

    def forward(self, x):
        y = self.mix(x).flatten(1).sum(dim=1)
        return torch.stack([y, -y], dim=1)


NEEDED = (0, 2, 5, 6)


def batches():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 200, 8, 2, 2, generator=generator)
    return [(b, (b[:, NEEDED].flatten(1).sum(dim=1) < 0).long()) for b in x]


def task(model=None, seed=0, **more):
    return Task(model or Parts(), batches()[0][0][:1], batches=batches, seed=seed, **more)


@pytest.mark.parametrize("seed", range(3))
def test_the_kernels_that_the_labels_need_are_found(seed):
    pruned = particles(task(seed=seed), Target("density", 0.5))
    kept = pruned.mask["mix.weight"][0, :, 0, 0]
    assert tuple(kept.nonzero().flatten().tolist()) == NEEDED
    assert not pruned.model.mix.weight[~pruned.mask["mix.weight"]].any()


def test_the_users_model_is_left_alone_and_the_same_seed_finds_the_same():
    model = Parts()
    before = copy.deepcopy(model.state_dict())
    a = particles(task(model, seed=7), Target("density", 0.25), masks=3, rounds=2)
    b = particles(task(model, seed=7), Target("density", 0.25), masks=3, rounds=2)
    assert torch.equal(a.mask["mix.weight"], b.mask["mix.weight"])
    assert torch.equal(model.mix.weight, before["mix.weight"])


def test_chance_is_a_random_mask_of_the_same_size():
    told = []
    job = task(say=told.append)
    pruned = particles(job, Target("density", 0.5), search="best_of", masks=1, rounds=1)
    assert int(pruned.mask["mix.weight"].sum()) == 16
    assert told == ["mix.weight: 4 of 8 units stay, not tried"]


def test_layers_are_searched_one_after_the_other(capsys):
    net = nn.Sequential(nn.Conv2d(8, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    told = []
    job = task(net, say=told.append)
    pruned = particles(job, Target("density", 0.5), densities=("3.weight=0.25",), masks=4, rounds=2)
    assert pruned.mask["0.weight"].float().mean() == 0.5
    assert pruned.mask["3.weight"].sum() == 2
    assert [line.split(",")[0] for line in told] == [
        "0.weight: 16 of 32 units stay",
        "3.weight: 2 of 8 units stay",
    ]


def test_channels_are_removed_with_all_that_reads_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    pruned = particles(
        task(net), Target("density", 0.5), granularity="out_channel", masks=4, rounds=2
    )
    assert pruned.compacted is not None
    assert pruned.model[0].out_channels == 3
    assert pruned.model[3].in_features == 3


def test_what_is_missing_is_said():
    with pytest.raises(PruneError, match=r"judged on images, and there are none; pass Task\(bat"):
        particles(Task(Parts(), torch.randn(1, 8, 2, 2)), Target("density", 0.5))
    with pytest.raises(UnknownNameError, match="unknown search 'x'; use one of filter, best_of"):
        particles(task(), Target("density", 0.5), search="x")
    with pytest.raises(BudgetError, match="so --macs cannot be met; use --density"):
        particles(task(), Target("macs", 0.5))
