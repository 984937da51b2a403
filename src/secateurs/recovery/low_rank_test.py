import pytest
import torch

from secateurs.recovery.low_rank import answers, apply, reduced, reduced_before_relu


def rows(count, out, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, out, generator=generator, dtype=torch.float64)


def lost(found, y, z):
    return float((z - apply(found, y)).square().sum())


def test_a_full_rank_is_least_squares():
    y, z = rows(50, 5), rows(50, 5, 1) + 3
    ones = torch.cat([y, torch.ones(50, 1).double()], dim=1)
    best = torch.linalg.lstsq(ones, z).solution
    torch.testing.assert_close(apply(reduced(y, z, 5), y), ones @ best)


def test_outputs_of_a_lower_dimension_come_back():
    y = rows(80, 2) @ rows(2, 6, 1) + rows(1, 6, 2)
    found = reduced(y, y, 2)
    torch.testing.assert_close(apply(found, y), y)
    assert found[0].shape == (6, 2)
    assert found[1].shape == (2, 6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_a_rank_loses_is_the_least(rank):
    y = rows(60, 4)
    z = y @ rows(4, 4, 1) + 0.3 * rows(60, 4, 2)
    found = reduced(y, z, rank, constant=False)
    assert not found[2].any()
    least = lost(found, y, z)
    for seed in range(40):  # no step from the optimum, by left and right, is better
        nudge = 1e-3 * rows(8, rank, seed + 3)
        other = found[0] + nudge[:4], found[1] + nudge[4:].T, found[2]
        assert lost(other, y, z) >= least - 1e-9
    # Against the closed form of the error: what all of the fit loses, and its small axes.
    fit = torch.linalg.lstsq(y, z).solution
    axes = torch.linalg.svdvals(y @ fit)[rank:].square().sum()
    assert least == pytest.approx(float((z - y @ fit).square().sum() + axes))


@pytest.mark.parametrize("t", [0.01, 1.0])
def test_answers_are_those_of_a_search(t):
    wanted, sent = rows(30, 1).clamp(min=0), rows(30, 1, 1)
    grid = torch.linspace(-4, 4, 16001, dtype=torch.float64)
    value = (wanted - grid.clamp(min=0)).square() + t * (grid - sent).square()
    found = answers(wanted, sent, t)
    at = (wanted - found.clamp(min=0)).square() + t * (found - sent).square()
    torch.testing.assert_close(at.squeeze(1), value.min(dim=1).values, rtol=0, atol=1e-6)


def test_looking_through_the_relu_loses_less_behind_it():
    y = rows(300, 6) @ rows(6, 6, 1) - 1
    blind, seeing = reduced(y, y, 2), reduced_before_relu(y, y, 2)
    gaps = [float((apply(f, y).relu() - y.relu()).square().sum()) for f in (blind, seeing)]
    assert gaps[1] < 0.97 * gaps[0]
