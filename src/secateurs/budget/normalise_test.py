import pytest
import torch

from secateurs.budget.normalise import NORMALISATIONS, lamp_scores, normalised
from secateurs.core.errors import BudgetError


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_the_order_within_a_site_stays(how):
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalised({"a": values}, how)["a"].argsort(), values.argsort())


@pytest.mark.parametrize("how", sorted(set(NORMALISATIONS) - {"none"}))
def test_the_scale_of_a_site_leaves(how):
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(
        normalised({"a": 1000 * values}, how)["a"], normalised({"a": values}, how)["a"]
    )


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [1.5, 0.5]), ("max", [1.0, 1 / 3]), ("l2", [0.9486833, 0.3162278])],
)
def test_a_site_by_hand(how, expected):
    assert normalised({"a": torch.tensor([3.0, 1.0])}, how)["a"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_a_site_of_zeros_stays_finite(how):
    assert normalised({"a": torch.zeros(3)}, how)["a"].isfinite().all()


def test_lamp_of_a_site_by_hand():
    squares = [1 / 14, 4 / 13, 1.0]
    assert lamp_scores(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx(squares)


def test_negative_scores_are_refused_by_name():
    with pytest.raises(BudgetError, match="the scores of 'a' by 'mean': some are negative"):
        normalised({"a": torch.tensor([-1.0, 2.0])}, "mean")


def test_an_unknown_way_lists_the_known():
    with pytest.raises(BudgetError, match="'median'; use one of none, mean, max, l2, lamp"):
        normalised({}, "median")
