import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.methods.movement import Moving, movement
from secateurs.methods.task import Target, Task
from secateurs.methods.through import through

RATE = 0.1


def line(*weights):
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def descend(model, x, times):
    """Plain gradient steps on the model's output, whose slope in a weight is its input."""
    for _ in range(times):
        stored = next(model.parameters())
        stored.grad = None
        model(x).sum().backward()
        with torch.no_grad():
            stored -= RATE * stored.grad


def test_scores_add_up_gradient_times_weight_also_behind_the_mask():
    model, x = line(2.0, 3.0), torch.tensor([[1.0, -4.0]])
    stage = Moving(model.weight)
    with through(model, {"weight": stage}):
        descend(model, x, 1)
        torch.testing.assert_close(stage.score, torch.tensor([[-2.0, 12.0]]))
        stage.keep.copy_(torch.tensor([[0.0, 1.0]]))
        before = next(model.parameters()).detach().clone()
        descend(model, x, 1)
        after = next(model.parameters()).detach().clone()
    # The first is masked: it rests at 1.9, and its score goes on; the second moves on.
    assert after[0, 0] == before[0, 0] == pytest.approx(1.9)
    torch.testing.assert_close(stage.score, torch.tensor([[-2.0 - 1.9, 12.0 + 4 * 3.4]]))
    assert model.weight.tolist() == [[0.0, pytest.approx(3.8)]]


def test_what_moves_away_from_zero_stays_however_small():
    # Large weights that shrink against small ones that grow, on either side of zero.
    model, x = line(9.0, -9.0, 0.1, -0.1), torch.tensor([[1.0, -1.0, -1.0, 1.0]])

    def train(model, *, name, after_step):
        for step in range(1, 11):
            descend(model, x, 1)
            after_step(step)

    task = Task(model, x, train=train, steps=10)
    pruned = movement(task, Target("density", 0.5), every=1)
    assert pruned.mask["weight"].tolist() == [[False, False, True, True]]


def test_a_weight_returns_with_the_value_it_had_when_its_score_has_risen():
    model, seen = line(1.0, 1.0), []

    def train(model, *, name, after_step):
        for step in range(1, 9):
            # At first the second falls and is cut; then the first falls, faster.
            descend(model, torch.tensor([[-1.0, 1.0] if step <= 3 else [9.0, -1.0]]), 1)
            after_step(step)
            seen.append(model.weight[0].tolist())

    task = Task(model, torch.ones(1, 2), train=train, steps=8)
    movement(task, Target("density", 0.5), every=1, begin=0.0, until=1.0, schedule="one_shot")
    assert [[v != 0 for v in values] for values in seen[:2]] == [[True, False]] * 2
    assert seen[-1][0] == 0
    assert seen[-1][1] > 0.9


def test_words_and_missing_training_are_refused():
    task = Task(line(1.0), torch.ones(1, 1))
    with pytest.raises(UnknownNameError, match="unknown ranking 'lamp'; use one of uniform, glo"):
        movement(task, Target(), ranking="lamp")
    with pytest.raises(PruneError, match="movement pruning acts while the model trains"):
        movement(task, Target())
