import pytest
import torch
from torch import Generator

from secateurs.core.errors import ShapeError
from secateurs.core.evidence import Evidence
from secateurs.criteria.activation import activation_rms, wanda
from secateurs.criteria.curvature import fisher, obd
from secateurs.criteria.magnitude import l1, l2
from secateurs.criteria.random import random
from secateurs.criteria.taylor import taylor, taylor_gate

W = torch.tensor([[3.0, -4.0], [1.0, 2.0]])
G = torch.tensor([[1.0, 1.0], [-2.0, 0.5]])


@pytest.mark.parametrize(
    ("criterion", "evidence", "scores"),
    [
        (l1, {"weight": W}, [7, 3]),
        (l2, {"weight": W[:1]}, [5]),
        (taylor, {"weight": W, "gradient": G}, [3 + 4, 2 + 1]),
        (taylor_gate, {"weight": W, "gradient": G}, [1, 1]),
        (obd, {"weight": W, "curvature": G}, [12.5, 0]),
        (fisher, {"weight": W, "gradient_square": G.square()}, [12.5, 2.5]),
        (activation_rms, {"activation_square": torch.tensor([[1.0, 7.0], [9.0, 9.0]])}, [2, 3]),
        (wanda, {"weight": W, "input_square": torch.tensor([[4.0, 9], [4, 9]])}, [18, 8]),
    ],
)
def test_a_formula_by_hand(criterion, evidence, scores):
    assert criterion(Evidence(**evidence)).tolist() == scores


def test_wanda_refuses_evidence_about_other_weights():
    with pytest.raises(ShapeError, match=r"weights \(2, 2\) and inputs \(2, 1\)"):
        wanda(Evidence(weight=W, input_square=W[:, :1]))


def test_random_scores_come_from_the_generator_alone():
    e = Evidence(weight=torch.ones(100, 2))
    torch.manual_seed(0)
    first = random(Generator().manual_seed(3))(e)
    torch.manual_seed(1)
    assert torch.equal(random(Generator().manual_seed(3))(e), first)
    assert not torch.equal(random(Generator().manual_seed(4))(e), first)
    assert 0 <= first.min() < 0.2 < 0.8 < first.max() < 1


def test_random_scores_differ_between_sites():
    criterion, e = random(Generator().manual_seed(0)), Evidence(weight=torch.ones(4, 1))
    assert not torch.equal(criterion(e), criterion(e))


def test_obd_predicts_the_loss_of_a_quadratic_exactly():
    h, w = torch.tensor([[2.0], [8.0]]), torch.tensor([[3.0], [-1.0]])

    def loss(v):
        return (h * (v - w).square() / 2).sum()

    damage = [loss(w * torch.tensor([[i != 0], [i != 1]])) - loss(w) for i in range(2)]
    assert obd(Evidence(weight=w, curvature=h)).tolist() == [float(d) for d in damage]


@pytest.mark.parametrize("criterion", [l1, l2])
def test_the_norm_of_a_wide_unit_does_not_overflow_in_half_precision(criterion):
    rows = torch.full((1, 400), 30_000, dtype=torch.float16)
    expected = criterion(Evidence(weight=rows.double()))
    torch.testing.assert_close(
        criterion(Evidence(weight=rows)).double(), expected, rtol=1e-6, atol=0
    )
