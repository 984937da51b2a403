import copy

import pytest
import torch
from torch import Tensor, nn

from secateurs.testing.elsewhere import another_device, here


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def learn(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_what_is_learnt_elsewhere_is_what_is_learnt_here():
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    one, other = net(), net()
    learn(one, x, y)
    with another_device() as device:
        learn(other.to(device), x.to(device), y.to(device))
        assert {p.device for p in other.parameters()} == {device}
        twin = copy.deepcopy(other)
        back = other.cpu()
    for a, b, c in zip(one.parameters(), back.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, here(c))


def test_a_tensor_that_was_left_behind_is_refused():
    with another_device() as device:
        far, near = torch.zeros(3, device=device), torch.ones(3)
        for wrong in (lambda: far + near, lambda: near + far, lambda: near[far.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        assert (far + torch.tensor(1.0)).tolist() == [1, 1, 1]
        assert torch.equal((far + near.to(device)).cpu(), near)
        assert torch.equal(far[torch.tensor([0, 2])].cpu(), torch.zeros(2))


def test_a_model_there_changes_its_type():
    with another_device() as device:
        model = net().to(device).double()
        assert model(torch.zeros(2, 4, dtype=torch.float64, device=device)).dtype == torch.float64
