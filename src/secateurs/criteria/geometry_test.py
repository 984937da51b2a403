import pytest
import torch
from torch import Generator

from secateurs.core.cut import keep_top
from secateurs.core.evidence import Evidence
from secateurs.criteria.geometry import fpgm
from secateurs.criteria.magnitude import l2


def test_the_middle_of_a_square_goes_first():
    square = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]])
    scores = fpgm(Evidence(weight=square))
    corner, middle = 2 + 2**0.5 + 0.5**0.5, 4 * 0.5**0.5
    assert scores.tolist() == pytest.approx([corner] * 4 + [middle])
    assert scores.argmin() == 4


def test_large_twins_amid_the_others_go_before_a_small_outlier():
    twin = torch.tensor([10.0, 10, 10])
    around = twin + 3 * torch.cat([torch.eye(3), -torch.eye(3)])
    rows = torch.cat([around, twin.expand(2, 3), torch.zeros(1, 3)])
    small = torch.arange(9) == 8
    assert torch.equal(keep_top(l2(Evidence(weight=rows)), 8), ~small)
    assert fpgm(Evidence(weight=rows)).argsort()[:2].sort().values.tolist() == [6, 7]


@pytest.mark.parametrize(("units", "size"), [(3, 4), (40, 7), (64, 576)])
def test_agrees_with_every_distance_taken_apart(units, size):
    rows = torch.randn(units, size, generator=Generator().manual_seed(0))
    apart = [sum(float(torch.dist(a.double(), b.double())) for b in rows) for a in rows]
    assert fpgm(Evidence(weight=rows)).tolist() == pytest.approx(apart, rel=1e-5)


def test_among_gaussian_filters_it_ranks_nearly_as_the_norm_does():
    rows = torch.randn(64, 576, generator=Generator().manual_seed(0))
    ranks = [f(Evidence(weight=rows)).argsort().argsort().double() for f in (fpgm, l2)]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.95
