"""What every method must obey that removes channels and so can meet a target of MACs."""

import inspect

import pytest
import torch
from torch import nn

from secateurs.measure.compute import macs
from secateurs.methods.table import METHODS, options_of
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

X = torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(x, (x.mean(dim=(1, 2, 3)) > 0).long()) for x in X.split(8)]
REMOVES = [
    name
    for name, method in METHODS.items()
    if "granularity" not in options_of(method)
    and "removable(" in inspect.getsource(inspect.getmodule(method))
]


class Data:
    train, valid = BATCHES, None


@pytest.fixture
def prepared(tmp_path):
    torch.manual_seed(0)
    model = DigitsCNN(classes=2, width=8).eval()
    train = Recovery(Stages(Data, tmp_path), "part", Trainer(epochs=2, lr=0.02))
    return Task(model, X[:1], train=train, batches=lambda: BATCHES[:4], steps=24, folder=tmp_path)


@pytest.mark.parametrize("name", REMOVES)
def test_a_target_of_macs_is_met_and_nearly_used_up_and_the_removal_proved(name, prepared):
    result = METHODS[name](prepared, Target("macs", 0.5))
    assert 0.4 < macs(result.model, X[:1]) / macs(prepared.model, X[:1]) <= 0.5
    assert result.compacted.proof.difference <= result.compacted.proof.tolerance


@pytest.mark.parametrize("name", REMOVES)
@pytest.mark.parametrize("target", [Target("macs", 0.5, 2), Target("density", 0.6, 4)], ids=str)
def test_a_multiple_of_channels_is_kept_everywhere(name, target, prepared):
    small = METHODS[name](prepared, target).model
    assert all(width % target.multiple_of == 0 for width in widths(small))
    assert sum(widths(small)) < sum(widths(prepared.model))


def widths(model):
    return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
