import torch
from torch import Generator, nn

from secateurs.evidence.curvature import curvature


class Bowl(nn.Module):
    """A loss of its weights alone."""

    def __init__(self, hessian):
        super().__init__()
        self.w = nn.Parameter(torch.randn(hessian.shape[0], generator=Generator().manual_seed(1)))
        self.spare = nn.Parameter(torch.ones(2))
        self.register_buffer("hessian", hessian)

    def forward(self, x):
        return x.sum() * self.w @ self.hessian @ self.w / 2


def measure(hessian, batches, probes=1):
    model = Bowl(hessian)
    return curvature(
        model, batches, lambda y: y, generator=Generator().manual_seed(0), probes=probes
    )


def test_a_diagonal_hessian_is_found_exactly_with_one_probe():
    found = measure(torch.diag(torch.tensor([1.0, -2.0, 0.0])), [torch.ones(1)])
    torch.testing.assert_close(found["w"], torch.tensor([1.0, -2.0, 0.0]))


def test_batches_are_averaged():
    found = measure(torch.diag(torch.tensor([1.0, 3.0])), [torch.ones(1), torch.ones(3)])
    torch.testing.assert_close(found["w"], torch.tensor([2.0, 6.0]))


def test_many_probes_approach_the_diagonal():
    hessian = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    found = measure(hessian, [torch.ones(1)], probes=400)
    torch.testing.assert_close(found["w"], hessian.diag(), rtol=0, atol=0.1)


def test_parameters_without_curvature_get_zeros():
    assert measure(torch.eye(2), [torch.ones(1)])["spare"].tolist() == [0.0, 0.0]
    linear = nn.Linear(2, 1)
    found = curvature(linear, [torch.ones(1, 2)], torch.sum, generator=Generator().manual_seed(0))
    assert found["weight"].tolist() == [[0.0, 0.0]]
