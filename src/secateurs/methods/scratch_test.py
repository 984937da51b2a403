import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, PruneError, ShapeError, UnknownNameError
from secateurs.measure.compute import macs
from secateurs.methods.scratch import (
    difference,
    equal_compute,
    from_nothing,
    milestones,
    scratch,
)
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN

RESNET56, RESNET110 = 125_485_056, 252_887_040


@pytest.mark.parametrize(
    ("dense", "small", "expected"),
    [
        (313_196_544, 206_143_488, 243),
        (RESNET56, round(RESNET56 * (1 - 0.104)), 178),
        (RESNET56, round(RESNET56 * (1 - 0.276)), 220),
        (RESNET110, round(RESNET110 * (1 - 0.159)), 190),
    ],
)
def test_epochs_at_equal_compute_are_the_papers(dense, small, expected):
    assert equal_compute(160, dense, small) == expected


def test_epochs_are_whole_and_limited():
    assert equal_compute(10, 3, 2) == 15
    assert equal_compute(10, 7, 2) == 35
    assert equal_compute(10, 7, 2, most=2) == 20
    with pytest.raises(BudgetError, match="8 MACs are not fewer than the dense network's 7"):
        equal_compute(10, 7, 8)


def test_milestones_stretch_with_the_total():
    assert milestones(160) == (80, 120)
    assert milestones(243) == (121, 182)


def test_the_same_architecture_none_of_the_weights():
    torch.manual_seed(0)
    model = DigitsCNN(width=8)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_()
        norm.running_mean.uniform_()
    fresh = from_nothing(model, seed=1)
    assert str(fresh) == str(model)
    for (name, a), (_, b) in zip(model.named_parameters(), fresh.named_parameters(), strict=True):
        assert a.shape == b.shape
        assert name.endswith("bias") or not torch.equal(a, b), name
    assert all(
        torch.equal(a, b)
        for a, b in zip(fresh.parameters(), from_nothing(model, seed=1).parameters(), strict=True)
    )


class Trained:
    def __init__(self):
        self.calls = []

    def __call__(self, model, *, name, epochs=None, after_step=None, penalty=None):
        self.calls.append((name, epochs))
        self.macs = macs(model, torch.zeros(2, 1, 8, 8))


def test_the_control_trains_as_long_as_it_costs_the_same():
    torch.manual_seed(0)
    model, x, train = DigitsCNN().eval(), torch.zeros(2, 1, 8, 8), Trained()
    task = Task(model, x, train=train)
    result = scratch(task, Target("macs", 0.5), budget="compute", epochs=20)
    assert train.calls == [("scratch", 20 * macs(model, x) // train.macs)]
    assert train.calls[0][1] >= 40
    assert result.notes[-1].startswith("trained from nothing in the shape of magnitude, 4")
    scratch(task, Target("macs", 0.5))
    assert train.calls[1] == ("scratch", None)


def test_what_is_missing_is_said():
    model, x = DigitsCNN(width=8), torch.zeros(2, 1, 8, 8)
    with pytest.raises(PruneError, match="training from scratch trains, and there is no training"):
        scratch(Task(model, x), Target())
    task = Task(model, x, train=Trained())
    with pytest.raises(PruneError, match="pass epochs="):
        scratch(task, Target(), budget="compute")
    with pytest.raises(UnknownNameError, match="unknown budget 'joy'; use one of epochs, compute"):
        scratch(task, Target(), budget="joy")
    with pytest.raises(UnknownNameError, match="unknown method 'scratch' to take the shape of"):
        scratch(task, Target(), of="scratch")


def test_a_difference_is_paired_and_says_whether_it_is_a_tie():
    found = difference([0.92, 0.94, 0.93], [0.90, 0.92, 0.91])
    assert found.mean == pytest.approx(0.02)
    assert not found.tie
    assert str(found).endswith("95% of 3 pairs: higher")
    tie = difference([0.92, 0.94, 0.93], [0.93, 0.92, 0.93])
    # t of 2 degrees of freedom at 97.5 %: 4.3027.
    gaps = torch.tensor([-0.01, 0.02, 0.0], dtype=torch.float64)
    assert tie.high - tie.mean == pytest.approx(4.30265 * float(gaps.std()) / 3**0.5, rel=1e-4)
    assert tie.tie
    assert str(tie).endswith("a tie")
    with pytest.raises(ShapeError, match="1 results and 1 controls are no pairs"):
        difference([0.9], [0.8])
