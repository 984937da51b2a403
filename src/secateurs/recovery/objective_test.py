import pytest
import torch
from torch import nn

from secateurs.core.errors import ShapeError
from secateurs.recovery.objective import classify, distil, supervised

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval()


def test_imitation_alone_vanishes_when_the_model_is_the_teacher():
    loss, _ = distil(net(0), weight=1.0)(net(0), X, Y)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_distilling_without_imitation_is_plain_training():
    ours, _ = distil(net(1), weight=0.0)(net(0), X, Y)
    plain, _ = classify()(net(0), X, Y)
    assert ours.item() == pytest.approx(plain.item())


def test_imitation_agrees_with_the_formula():
    student, teacher, t = net(0), net(1), 4.0
    loss, _ = distil(teacher, temperature=t, weight=1.0)(student, X, Y)
    p, q = (teacher(X) / t).softmax(1), (student(X) / t).softmax(1)
    assert loss.item() == pytest.approx((t**2 * (p * (p / q).log()).sum(1).mean()).item(), rel=1e-4)


def test_the_teacher_learns_nothing_and_keeps_its_mode():
    teacher = net(1).train()
    loss, _ = distil(teacher)(net(0), X, Y)
    loss.backward()
    assert teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_a_loss_of_ones_own_is_used():
    loss, scores = supervised(lambda s, y: s.sum() * 0 + 42)(net(0), X, Y)
    assert loss.item() == 42
    assert scores.shape == (6, 2)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ShapeError, match="labels run from 0 to 9"):
        classify()(net(0), X, torch.tensor([0, 9, 0, 0, 0, 0]))
