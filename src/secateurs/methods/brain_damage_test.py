import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.core.errors import (
    BudgetError,
    PruneError,
    ShapeError,
    StructureError,
    UnknownNameError,
)
from secateurs.granularity.grains import fibres
from secateurs.measure.accuracy import evaluate
from secateurs.methods.brain_damage import (
    brain_damage,
    group_norms,
    patterned,
    shrink_groups,
    spread_norms,
)
from secateurs.methods.task import Target, Task
from secateurs.realise.lowered import lowered


def test_the_proximal_step_shortens_a_group_and_ends_at_zero():
    group, norm = torch.tensor([3.0, 4.0]), torch.tensor(5.0)
    torch.testing.assert_close(shrink_groups(group, norm, 1.0), torch.tensor([2.4, 3.2]))
    assert shrink_groups(group, norm, 5.0).tolist() == [0, 0]
    assert shrink_groups(group, norm, 7.0).tolist() == [0, 0]
    assert shrink_groups(torch.zeros(2), torch.tensor(0.0), 1.0).tolist() == [0, 0]


@pytest.mark.parametrize("groups", [1, 2])
def test_norms_run_over_the_filters_that_share_a_tap(groups):
    weight = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    spread = spread_norms(weight, groups)
    for t in range(6):
        first = t // (6 // groups) * (6 // groups)
        expected = weight[first : first + 6 // groups].norm(dim=0)
        torch.testing.assert_close(spread[t], expected)
    if groups == 1:
        site = fibres(nn.Sequential(nn.Conv2d(2, 6, 3)))["0.weight"]
        torch.testing.assert_close(
            group_norms(weight, site, "0.weight"), weight.flatten(2).norm(dim=0).flatten()
        )


def test_proximal_descent_reaches_block_soft_thresholding():
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(40, 12, generator=generator, dtype=torch.float64))[0]
    y = torch.randn(40, 5, generator=generator, dtype=torch.float64) * 2
    penalty, rate = 3.0, 0.5
    f = torch.zeros(12, 5, dtype=torch.float64)
    for _ in range(500):
        f = f - rate * (u.T @ (u @ f - y))
        f = shrink_groups(f, f.norm(dim=1, keepdim=True), rate * penalty)
    best = u.T @ y
    closed = shrink_groups(best, best.norm(dim=1, keepdim=True), penalty)
    torch.testing.assert_close(f, closed, rtol=0, atol=1e-6)
    assert 0 < int((closed.norm(dim=1) == 0).sum()) < 12


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_thinner_product_is_the_masked_convolution(stride, padding):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=stride, padding=padding).double()
    keep = (torch.rand(1, 3, 3, 3) < 0.4).expand(4, 3, 3, 3)
    thin = lowered(nn.Sequential(conv), {"0.weight": keep})
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64)
    expected = F.conv2d(x, conv.weight * keep, conv.bias, stride, padding)
    torch.testing.assert_close(thin(x), expected, rtol=0, atol=1e-5)
    assert thin[0].columns == int(keep[0].sum())


def test_patterns_are_what_they_are_called():
    assert patterned(torch.zeros(2, 3, 5, 5), "cross")[1, 2].sum() == 9
    board = patterned(torch.zeros(1, 1, 3, 3), "checkerboard")[0, 0].int().tolist()
    assert board == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert patterned(torch.zeros(1, 1, 3), "cross")[0, 0].tolist() == [False, True, False]
    assert patterned(torch.zeros(2, 3, 1, 1), "cross").all()
    with pytest.raises(ShapeError, match=r"a weight of shape \(2, 3\) has no kernel"):
        patterned(torch.zeros(2, 3), "cross")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2)
    )


def labelled():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, 8, 8, generator=generator)
    return [(x, (x[:, 0, 2:5, 2:5].mean((1, 2)) > 0).long())]


class Loop:
    """A training loop of the user's own."""

    def __init__(self):
        self.parts, self.zeros = [], 0

    def __call__(self, model, *, name, epochs=None, after_step=None, penalty=None):
        self.parts.append((name, epochs))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step in range(1, 16):
            for x, y in labelled():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            if after_step:
                after_step(step)
        self.zeros = int((model[2].weight.norm(dim=0) == 0).sum())


def prune(variant, density=0.3, **options):
    loop, x = Loop(), labelled()[0][0]
    task = Task(net(), x, train=loop, batches=labelled)
    return brain_damage(task, Target("density", density), variant=variant, **options), loop


@pytest.mark.parametrize("variant", ["sparse", "gradual"])
def test_whole_groups_go_down_to_the_target(variant):
    result, loop = prune(variant, rounds=2, densities=("0.weight=1",))
    keep = result.mask["2.weight"]
    assert torch.equal(keep, keep[:1].expand_as(keep))
    assert int(keep[0].sum()) == round(0.3 * 72)
    assert result.mask["0.weight"].all()
    assert not result.model[2].weight[~keep].any()
    first = "sparse" if variant == "sparse" else "round-0"
    assert loop.parts[0] == (first, 1)
    assert loop.parts[-1] == ("recover", None)
    assert evaluate(result.model, labelled()).value > 0.8


def test_the_penalty_makes_exact_zeros_while_training():
    loop, x = Loop(), labelled()[0][0]
    parts = []

    def train(model, *, name, epochs=None, after_step=None, penalty=None):
        loop(model, name=name, epochs=epochs, after_step=after_step)
        parts.append(loop.zeros)

    task = Task(net(), x, train=train, batches=labelled)
    brain_damage(task, Target("density", 0.9), variant="sparse", shrink=0.1)
    assert parts[0] > 10


def test_a_fixed_pattern_needs_no_training():
    model, x = net(), labelled()[0][0]
    result = brain_damage(Task(model, x), Target("density", 1.0), variant="fixed")
    assert result.mask.density == 5 / 9


def test_what_is_missing_is_said():
    model, x = net(), labelled()[0][0]
    task = Task(model, x, train=Loop())
    with pytest.raises(PruneError, match="the sparse variant trains under a penalty"):
        brain_damage(Task(model, x), Target(), variant="sparse")
    with pytest.raises(PruneError, match="the gradual variant watches accuracy"):
        brain_damage(task, Target())
    with pytest.raises(BudgetError, match="masks leave parameters and MACs"):
        brain_damage(task, Target("macs", 0.5))
    with pytest.raises(StructureError, match="Linear has no convolution whose taps"):
        brain_damage(Task(nn.Linear(2, 2), torch.zeros(1, 2)), Target())
    with pytest.raises(UnknownNameError, match="unknown variant 'sudden'"):
        brain_damage(task, Target(), variant="sudden")


def test_a_thinner_network_computes_the_same_and_says_what_was_timed():
    model, x = net(), labelled()[0][0]
    task = Task(model, x)
    zeros = brain_damage(task, Target("density", 1.0), variant="fixed")
    found = brain_damage(task, Target("density", 1.0), variant="fixed", thin="all")
    torch.testing.assert_close(found.model(x), zeros.model(x))
    assert sum(p.numel() for p in found.model.parameters()) < sum(
        p.numel() for p in model.parameters()
    )
    assert not found.mask
    assert found.notes[1].startswith("2.weight: 56% of the taps; the thinner product takes ")
