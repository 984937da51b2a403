import pytest
import torch
from torch import nn

from secateurs.methods.progressive import progressive
from secateurs.methods.task import Target, Task
from secateurs.schedule.curves import one_cycle

STEPS = 40


def kept_at_every_step(**options):
    """What a training of 40 steps that changes nothing sees after each of them."""
    seen, names = [], []

    def train(model, *, name, after_step):
        names.append(name)
        for step in range(1, STEPS + 1):
            after_step(step)
            keeps = [b for n, b in model.named_buffers() if n.endswith("keep")]
            seen.append(sum(int(keep.sum()) for keep in keeps))

    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Linear(20, 5, bias=False))
    task = Task(model, torch.ones(1, 10), train=train, steps=STEPS)
    progressive(task, Target("density", 0.1), **options)
    return names, seen


def test_one_training_goes_from_everything_to_the_target_by_the_papers_curve():
    names, seen = kept_at_every_step()
    assert names == ["gradual"]
    wanted = [round(300 * (1 - 0.9 * one_cycle(step / STEPS))) for step in range(1, STEPS + 1)]
    assert seen == pytest.approx(wanted, abs=1)
    assert (seen[0], seen[-1]) == (wanted[0], 30)


def test_the_curve_has_the_papers_shape_up_to_its_start():
    # s(t) = (1 + e^(-alpha + beta)) / (1 + e^(-alpha t + beta)) with alpha 14, beta 5
    def paper(t):
        return (1 + 2.718281828**-9) / (1 + 2.718281828 ** (5 - 14 * t))

    assert all(abs(one_cycle(t / 20) - paper(t / 20)) < 0.007 for t in range(21))


def test_the_linear_schedule_cuts_the_same_number_at_every_step():
    seen = kept_at_every_step(schedule="linear")[1]
    assert seen == pytest.approx([300 - 6.75 * step for step in range(1, STEPS + 1)], abs=1)
