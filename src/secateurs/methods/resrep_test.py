import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, PruneError
from secateurs.methods.channels import filters, removable
from secateurs.methods.resrep import resrep, shorten_
from secateurs.methods.resrep_compactor import compactors, merge_
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN

STEPS = 40


def used(model, x):
    """Give batch norms statistics and weights of their own."""
    torch.manual_seed(1)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    with torch.no_grad():
        for _ in range(20):
            model.train()(x)
    return model.eval()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5),
                         nn.ReLU(), nn.Linear(5, 2))  # fmt: skip


def digits():
    torch.manual_seed(0)
    return used(DigitsCNN(classes=2, width=8), torch.randn(32, 1, 8, 8))


@pytest.mark.parametrize("build", [plain, digits])
def test_merging_changes_nothing_in_evaluation_nor_what_a_batch_norm_measures(build):
    model, x = build(), torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = filters(removable(model, x[:1]).sites, model)
    behind = compactors(model, x[:1], made)
    assert len(behind) == (2 if build is plain else 6)
    for part in behind.values():
        part.attach_()
        with torch.no_grad():
            part.matrix.add_(0.3 * torch.randn(part.matrix.shape))
    with torch.no_grad():
        before = model(x)
    names = set(build().state_dict())
    merge_(behind, model, [(x, None)])
    assert set(model.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
        # Statistics are those of the data, so training mode sees nearly the same.
        close = (model.train()(x) - before).norm() / before.norm()
    assert close < 0.05


def test_forgotten_rows_do_not_hear_the_loss():
    model, x = digits(), torch.randn(4, 1, 8, 8)
    behind = compactors(model, x[:1], filters(removable(model, x[:1]).sites, model))
    for part in behind.values():
        part.attach_()
    part = behind["block1.conv1.0.weight"]
    assert part.holder is model.block1.conv1[1]
    part.remembers[2] = 0
    model(x).square().sum().backward()
    assert not part.matrix.grad[2].any()
    assert part.matrix.grad[[0, 1, 3, 4, 5, 6, 7]].any(dim=1).all()
    assert model.block1.conv1[0].weight.grad[2].any()


def test_rows_are_shortened_by_a_length_and_forgotten_ones_to_zero_in_time():
    matrix = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.1]])
    remembers = torch.tensor([1.0, 0.0, 1.0])
    for left in (3, 2, 1, 0):
        shorten_(matrix, remembers, 0.5, left)
    torch.testing.assert_close(matrix[0], torch.tensor([3.0, 4.0]) * 3 / 5)
    assert not matrix[1:].any()


def train(model, *, name, epochs=None, after_step=None, penalty=None):
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    model.train()
    for step in range(1, STEPS + 1 if after_step else 1):
        x = torch.randn(16, 1, 8, 8, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x.mean((1, 2, 3)) > 0).long()).backward()
        optimizer.step()
        after_step(step)
    model.eval()


@pytest.mark.parametrize("build", [plain, digits])
def test_what_is_cut_had_vanished_so_the_cut_costs_nothing(build):
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = {}

    def watched(model, **rest):
        train(model, **rest)
        whole.setdefault("model", copy.deepcopy(model))

    task = Task(build(), x[:1], train=watched, steps=STEPS, batches=lambda: [(x, None)],
                repair="none")  # fmt: skip
    result = resrep(task, Target("density", 0.5), rechoose=4)
    with torch.no_grad():
        expected = whole["model"](x)
        torch.testing.assert_close(result.model(x), expected, rtol=1e-3, atol=1e-3)
    assert sum(result.compacted.removed.values()) > 0
    assert "the longest row that was cut had" in result.notes[0]


def test_what_is_missing_is_said():
    task = Task(digits(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(PruneError, match="ResRep acts while the model trains"):
        resrep(task, Target())
    with pytest.raises(BudgetError, match="cannot choose 20 times between steps 0 and 0 of 0"):
        resrep(Task(digits(), torch.zeros(1, 1, 8, 8), train=train, steps=0), Target())
