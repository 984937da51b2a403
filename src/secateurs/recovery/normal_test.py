import pytest
import torch

from secateurs.recovery.normal import Normal


def problem(rows=60, groups=2, size=4, out=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, groups, size, generator=generator, dtype=torch.float64) + 1
    y = torch.randn(rows, groups, out, generator=generator, dtype=torch.float64)
    return x, y


def test_sums_of_parts_are_the_sum_of_all():
    x, y = problem()
    parts, whole = Normal.of(x[:20], y[:20]) + Normal.of(x[20:], y[20:]), Normal.of(x, y)
    assert parts.rows == whole.rows == 60
    for name in ("gram", "cross", "inputs", "targets", "squares"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("centre", [False, True])
def test_the_fit_is_that_of_lstsq(centre):
    x, y = problem()
    sums = Normal.of(x, y).centred() if centre else Normal.of(x, y)
    fitted = sums.solve(torch.zeros(2, 3, 4))
    for g in range(2):
        ones = torch.ones(60, 1, dtype=torch.float64)
        design = torch.cat([x[:, g], ones], dim=1) if centre else x[:, g]
        expected = torch.linalg.lstsq(design, y[:, g]).solution
        torch.testing.assert_close(fitted[g], expected[:4].T)
        if centre:
            constant = Normal.of(x, y).intercept(fitted)[g]
            torch.testing.assert_close(constant, expected[4])


def test_unused_columns_read_as_zeros():
    x, y = problem()
    keep = torch.tensor([[True, False, True, True], [True, True, False, True]])
    only, zeroed = Normal.of(x, y).only(keep).centred(), Normal.of(x * keep, y).centred()
    torch.testing.assert_close(only.gram, zeroed.gram)
    torch.testing.assert_close(only.cross, zeroed.cross)


def test_the_error_is_the_squared_residual():
    x, y = problem()
    weight = torch.randn(2, 3, 4, dtype=torch.float64)
    residual = y - torch.einsum("rgs,gos->rgo", x, weight)
    expected = residual.square().sum()
    assert Normal.of(x, y).lost(weight) == pytest.approx(float(expected))


def test_ridge_pulls_towards_the_start():
    x, y = problem()
    start = torch.full((2, 3, 4), 5.0, dtype=torch.float64)
    sums = Normal.of(x, y)
    far, near, held = (sums.solve(start, ridge) for ridge in (0.0, 1.0, 1e9))
    assert (far - start).norm() > (near - start).norm() > 0.1
    torch.testing.assert_close(held, start, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_directions_without_inputs_stay(ridge):
    x, y = problem()
    x[:, :, 2] = 0
    start = torch.full((2, 3, 4), 7.0, dtype=torch.float64)
    fitted = Normal.of(x, y).solve(start, ridge)
    torch.testing.assert_close(fitted[:, :, 2], start[:, :, 2])
    assert Normal.of(torch.zeros_like(x), y).solve(start, ridge).equal(start)
