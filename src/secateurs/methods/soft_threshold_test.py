import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import BudgetError
from secateurs.methods.soft_threshold import OFF, Soft, soft_threshold
from secateurs.methods.task import Target, Task


def shrunk(weight, level):
    stage = Soft(weight)
    with torch.no_grad():
        stage.level.fill_(level)
        stage.offset.zero_()
    return stage


def test_weights_shrink_by_the_sigmoid_of_the_level_and_stop_at_zero():
    stage = shrunk(torch.zeros(4), 0.0)
    seen = stage(torch.tensor([0.7, -0.9, 0.4, -0.5]))
    torch.testing.assert_close(seen, torch.tensor([0.2, -0.4, 0.0, 0.0]))


def test_the_level_learns_by_the_papers_gradient():
    # dL/ds = -g'(s) sum over |w| > g(s) of sign(w) dL/dseen, and dL/dw = dL/dseen there.
    weight = torch.randn(50, generator=Generator().manual_seed(0), dtype=torch.float64)
    slope = torch.randn(50, generator=Generator().manual_seed(1), dtype=torch.float64)
    weight.requires_grad_()
    stage = shrunk(weight.detach(), -0.4)
    (stage(weight) * slope).sum().backward()
    g = torch.tensor(-0.4, dtype=torch.float64).sigmoid()
    above = weight.detach().abs() > g
    expected = -g * (1 - g) * (weight.detach().sign() * slope * above).sum()
    torch.testing.assert_close(stage.level.grad, expected)
    torch.testing.assert_close(weight.grad, slope * above)


def test_settled_weights_are_seen_as_before_and_have_no_threshold():
    weight = nn.Parameter(torch.tensor([0.7, -0.9, 0.4]))
    stage = shrunk(weight, 0.0)
    before = stage(weight).detach()
    stage.settle_(weight, torch.tensor([True, True, False]))
    torch.testing.assert_close(stage(weight).detach(), before)
    stage(weight).sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0, 0.0]
    assert stage.level.grad == 0


def pruned_with_levels(levels, steps=4):
    """Prune two layers of equal weights whose levels a training sets by hand."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    values = torch.randperm(64, generator=Generator().manual_seed(0)).view(8, 8) / 100 + 0.01
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(values)
    counts = []

    def train(model, *, name, after_step):
        learned = [p for n, p in model.named_parameters() if n.endswith("level")]
        with torch.no_grad():
            for p, level in zip(learned, levels, strict=True):
                p.fill_(level)
        for step in range(1, steps + 1):
            after_step(step)
            counts.append([int((layer.weight != 0).sum()) for layer in model])

    task = Task(model, torch.ones(1, 8), train=train, steps=steps)
    return soft_threshold(task, Target("density", 0.25), every=1), counts


def test_exactly_the_scheduled_number_lies_above_the_thresholds_at_every_update():
    _, counts = pruned_with_levels([0.0, 0.0])
    # Three of the four steps prune: cubic from 128 to 32.
    wanted = [round(128 * (1 - 0.75 * (1 - (1 - s / 3) ** 3))) for s in (1, 2, 3)]
    assert [sum(c) for c in counts] == pytest.approx([*wanted, 32], abs=1)
    assert counts[-1] == [16, 16]


def test_a_layer_that_has_learned_a_lower_level_keeps_more():
    pruned, counts = pruned_with_levels([0.5, -0.5])
    first, second = counts[-1]
    assert first < 16 < second
    assert pruned.mask.kept == first + second == 32


def test_all_weights_are_seen_at_first_and_a_cost_is_no_target():
    assert torch.sigmoid(torch.tensor(OFF)) < 1e-17
    task = Task(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(BudgetError, match="thresholds leave macs as they are; use --density"):
        soft_threshold(task, Target("macs", 0.5))
