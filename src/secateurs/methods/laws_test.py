"""What every method in the table must obey, on a network it has never heard of."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import PruneError
from secateurs.data.load import from_loaders
from secateurs.methods.table import METHODS
from secateurs.methods.task import Target, Task
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages
from secateurs.testing.elsewhere import another_device, here

EPOCHS, STEPS = 2, 3
MACS = {"dcp": Target("macs", 0.6), "three_c": Target("macs", 0.5)}
FEW = {"masks": 4, "rounds": 2}
NEEDED = {"soft_filter": {"rerank": 2}, "particles": FEW, "strided": FEW}
LABELS = {"particles", "strided", "obd", "group_taylor", "group_fisher", "isomorphic", "han"}
LABELS |= {"snip", "grasp", "dcp", "brain_damage"}
NOT_HERE = {"planned": "takes a plan", "scratch": "trains what another method chose"}


def batches():
    x = torch.randn(STEPS, 8, 1, 8, 8, generator=Generator().manual_seed(0))
    return [(b, (b[:, 0, :4].sum((1, 2)) > b[:, 0, 4:].sum((1, 2))).long()) for b in x]


DATA = from_loaders(batches())


class Net(nn.Module):
    """Convolutions with batch norm around a shortcut, a cast, a linear layer, and biases."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last, self.last_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = (x + self.last_norm(self.last(self.inner_norm(self.inner(x)).relu()))).relu()
        return self.fc(x.mean((2, 3)).to(self.fc.weight.dtype))


def task(folder, wrap=lambda train: train):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
    train = Recovery(Stages(DATA, folder / "stages"), "part", Trainer(epochs=EPOCHS, lr=0.05))
    return Task(
        model,
        DATA.example,
        train=wrap(train),
        batches=batches,
        steps=EPOCHS * STEPS,
        folder=folder,
    )


def dying(train):
    """Let training stop in the second epoch of its first part."""

    def killed(model, *, name, after_step=None, **rest):
        def counting(step):
            if after_step:
                after_step(step)
            if step == STEPS + 2:
                raise KeyboardInterrupt

        train(model, name=name, after_step=counting, **rest)

    return killed


def pruned_by(name, job):
    return METHODS[name](job, MACS.get(name, Target("density", 0.5)), **NEEDED.get(name, {}))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in NOT_HERE])
def test_a_method_prunes_a_copy_and_when_killed_goes_on_to_the_same(tmp_path, name):
    job = task(tmp_path / "whole")
    before = copy.deepcopy(job.model.state_dict())
    whole = pruned_by(name, job)
    assert all(torch.equal(value, before[key]) for key, value in job.model.state_dict().items())
    state = whole.model.state_dict()
    for param, keep in whole.mask.items():
        assert not state[param][~keep].any(), param
    left = sum(int(p.count_nonzero()) for p in whole.model.parameters())
    assert left < 0.8 * sum(p.numel() for p in job.model.parameters())
    assert whole.model(DATA.example).shape == (len(DATA.example), 2)

    with pytest.raises(KeyboardInterrupt):
        pruned_by(name, task(tmp_path / "killed", dying))
    again = pruned_by(name, task(tmp_path / "killed"))
    assert again.mask.keys() == whole.mask.keys()
    for param, keep in whole.mask.items():
        assert torch.equal(again.mask[param], keep), param
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in NOT_HERE])
def test_a_method_does_the_same_on_another_device(tmp_path, name):
    wanted = pruned_by(name, task(tmp_path / "here"))
    with another_device() as device:
        job = task(tmp_path / "there")
        far = [(x.to(device), y.to(device)) for x, y in batches()]
        job = replace(job, example=job.example.to(device), batches=lambda: far)
        job.model.to(device)
        found = pruned_by(name, job)
        assert {p.device for p in found.model.parameters()} == {device}
        masks = {param: here(keep.cpu()) for param, keep in found.mask.items()}
        state = {key: here(value) for key, value in found.model.state_dict().items()}
    assert masks.keys() == wanted.mask.keys()
    assert all(torch.equal(masks[param], keep) for param, keep in wanted.mask.items())
    for key, value in wanted.model.state_dict().items():
        torch.testing.assert_close(state[key], value.detach())


@pytest.mark.parametrize("name", [n for n in METHODS if n not in NOT_HERE])
def test_a_method_that_needs_labels_says_so_and_others_do_without(tmp_path, name):
    job = task(tmp_path / "with")
    bare = replace(task(tmp_path / "without"), batches=lambda: [x for x, _ in batches()])
    if name in LABELS:
        with pytest.raises(PruneError, match=r"pass batches of \(inputs, labels\)"):
            pruned_by(name, bare)
        return
    wanted, found = pruned_by(name, job), pruned_by(name, bare)
    for a, b in zip(wanted.model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(a, b)
