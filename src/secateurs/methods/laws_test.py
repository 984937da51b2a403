<<<<<<< HEAD
"""What every method in the table must obey, on a network it has never heard of."""

import copy

import pytest
import torch
from torch import Generator, nn

from secateurs.data.load import from_loaders
from secateurs.methods.table import METHODS
from secateurs.methods.task import Target, Task
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

EPOCHS, STEPS = 2, 3
MACS = {"dcp": Target("macs", 0.6)}
FEW = {"masks": 4, "rounds": 2}
NEEDED = {"soft_filter": {"rerank": 2}, "particles": FEW, "strided": FEW}
NOT_HERE = {"planned": "takes a plan", "scratch": "trains what another method chose"}


def batches():
    x = torch.randn(STEPS, 8, 1, 8, 8, generator=Generator().manual_seed(0))
    return [(b, (b[:, 0, :4].sum((1, 2)) > b[:, 0, 4:].sum((1, 2))).long()) for b in x]


DATA = from_loaders(batches())


class Net(nn.Module):
    """Convolutions with batch norm around a shortcut, a linear layer, and biases."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last, self.last_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = (x + self.last_norm(self.last(self.inner_norm(self.inner(x)).relu()))).relu()
        return self.fc(x.mean((2, 3)))


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
=======
"""What every method must obey, whichever it is: one more costs no line here."""

import copy
import inspect
import itertools

import pytest
import torch
from torch.nn import functional as F

from secateurs.measure.compute import macs
from secateurs.methods.table import METHODS, options_of
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN

STEPS = 12
NAMES = [name for name, method in METHODS.items() if "plan" not in options_of(method)]
REMOVES = [
    name
    for name in NAMES
    if "granularity" not in options_of(METHODS[name])
    and "removable(" in inspect.getsource(inspect.getmodule(METHODS[name]))
]
"""Those that find channels to remove and so take a target of MACs."""


def batches():
    x = torch.randn(4, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return [(some, (some.mean(dim=(1, 2, 3)) > 0).long()) for some in x]


def train(model, *, name, epochs=None, after_step=None, penalty=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    model.train()
    for step, (x, y) in enumerate(itertools.islice(itertools.cycle(batches()), STEPS), start=1):
        loss = F.cross_entropy(model(x), y)
        loss = loss + penalty(model) if penalty else loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after_step:
            after_step(step)
    model.eval()


def pruned(name, target, folder):
    torch.manual_seed(0)
    model = DigitsCNN(classes=2, width=8)
    with torch.no_grad():
        for x, _ in batches():
            model(x)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    task = Task(
        model, batches()[0][0][:1], train=train, batches=batches, steps=STEPS, folder=folder
    )
    few = {"rerank": 2, "rechoose": 2, "masks": 8, "rounds": 2}
    options = {key: few[key] for key in options_of(METHODS[name]) if key in few}
    result = METHODS[name](task, target, **options)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return model, result


@pytest.mark.parametrize("name", NAMES)
def test_the_task_is_not_changed_and_what_is_left_works_with_zeros_where_the_mask_says(
    name, tmp_path
):
    _, result = pruned(name, Target("density", 0.5), tmp_path)
    with torch.no_grad():
        y = result.model.eval()(batches()[0][0])
    assert y.shape == (16, 2)
    assert y.isfinite().all()
    state = result.model.state_dict()
    for param, keep in result.mask.items():
        assert not state[param][~keep].any()
    if result.compacted is not None:
        assert result.compacted.proof.difference <= result.compacted.proof.tolerance


@pytest.mark.parametrize("name", REMOVES)
def test_a_target_of_macs_is_met_and_nearly_used_up(name, tmp_path):
    model, result = pruned(name, Target("macs", 0.5), tmp_path)
    x = batches()[0][0][:1]
    assert 0.4 < macs(result.model, x) / macs(model, x) <= 0.5
>>>>>>> 7512da0 (Add group Taylor, group Fisher, DepGraph, isomorphic ranking, growing regularisation, ResRep and uniform width)
