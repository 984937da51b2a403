import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.methods.greg import greg, growing
from secateurs.methods.task import Target, Task

STEPS = 200


def net(first):
    """Two units of a stream; a unit's filter is one number."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(first)[:, None])
        model[1].weight.fill_(1.0)
    return model


def quadratic(curvature, seen):
    """Descend ½ Σ h (w - w*)², w* where training begins, on the first layer."""

    def train(model, *, name, epochs=None, after_step=None, penalty=None):
        start, h = model[0].weight.detach().clone(), torch.tensor(curvature)[:, None]
        for step in range(1, STEPS + 1):
            with torch.no_grad():
                model[0].weight -= 0.1 * h[: len(start)] * (model[0].weight - start)
            if after_step:
                after_step(step)
        seen.append((name, model[0].weight.detach().flatten().clone()))

    return train


def test_the_decay_grows_evenly_to_its_sum():
    shares = [growing(step, 50, 6.0) for step in range(1, 51)]
    assert sum(shares) == pytest.approx(6.0)
    assert shares[49] == pytest.approx(50 * shares[0])
    assert growing(1, 1, 6.0) == 1.0


def test_what_shall_go_has_almost_gone_before_it_is_cut():
    seen = []
    task = Task(net([1.0, 2.0]), torch.ones(1, 1), train=quadratic([0.0, 1.0], seen), steps=STEPS)
    result = greg(task, Target("density", 0.5))
    assert [name for name, _ in seen] == ["grow", "recover"]
    least, kept = seen[0][1]
    expected = torch.tensor([1 - growing(s, STEPS, 6.0) for s in range(1, STEPS + 1)]).prod()
    assert float(least) == pytest.approx(float(expected), rel=1e-4)
    assert float(kept) == 2.0
    assert result.model[0].weight.flatten().tolist() == [2.0]


def test_growing_the_decay_of_all_tells_curvature_apart_where_norms_do_not():
    # The first unit is a little longer, but the loss depends on the second a hundred times more.
    for variant, stays in (("greg1", 1.1), ("greg2", 1.0)):
        seen = []
        task = Task(
            net([1.1, 1.0]), torch.ones(1, 1), train=quadratic([0.01, 1.0], seen), steps=STEPS
        )
        result = greg(task, Target("density", 0.5), variant=variant, pick=1.0)
        assert result.model[0].weight.shape[0] == 1
        first = seen[0][1]
        if variant == "greg2":
            # At rest, h (w* - w) η = rate · w to first order: the stiff unit hardly moves.
            rate = growing(STEPS, STEPS, 1.0)
            assert float(first[1]) == pytest.approx(0.1 / (0.1 + rate / (1 - rate)), rel=2e-2)
            assert first[0] < first[1]
        assert (float(first[0]) < float(first[1])) == (stays == 1.0)


def test_what_is_missing_is_said():
    task = Task(net([1.0, 2.0]), torch.ones(1, 1))
    with pytest.raises(PruneError, match="growing regularisation acts while the model trains"):
        greg(task, Target())
    with pytest.raises(UnknownNameError, match="unknown variant 'greg3'"):
        greg(task, Target(), variant="greg3")
