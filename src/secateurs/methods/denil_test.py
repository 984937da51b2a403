from math import exp

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from secateurs.core.errors import BudgetError, ShapeError
from secateurs.methods.denil import (
    Predicted,
    choose,
    covariance,
    dictionaries,
    grid,
    predicted_conv,
    ridge,
    squared_exponential,
)
from secateurs.methods.denil_redundancy import redundancy


def seeded(seed=0):
    return Generator().manual_seed(seed)


def kernel(n=6, width=1.0):
    return squared_exponential(grid(n), width)


def test_all_coordinates_without_a_ridge_give_the_identity():
    torch.testing.assert_close(ridge(kernel(), torch.arange(6), 0.0), torch.eye(6).double())


def test_weights_the_kernel_spans_are_predicted_exactly():
    chosen = torch.tensor([0, 2, 5])
    c = torch.randn(3, generator=seeded(), dtype=torch.float64)
    w = kernel()[chosen].T @ c
    torch.testing.assert_close(ridge(kernel(), chosen, 0.0) @ w[chosen], w)


def test_without_prediction_the_rest_is_zero():
    (u,) = dictionaries("connections", 5, 2, generator=seeded())
    assert u.sum(dim=0).tolist() == [1, 1]
    assert int(u.any(dim=1).sum()) == 2


def test_the_rank_is_at_most_the_values_of_all_columns():
    us = dictionaries("kernel", 16, 3, columns=2, kernel=kernel(16), generator=seeded())
    layer = Predicted(us, 12, generator=seeded())
    assert layer.weight.shape == (16, 12)
    assert int(torch.linalg.matrix_rank(layer.weight)) == 6
    assert layer.learned == pytest.approx(3 / 16)
    (one,) = dictionaries("gaussian", 16, 3, generator=seeded())
    assert int(torch.linalg.matrix_rank(Predicted([one], 12, generator=seeded()).weight)) == 3


def test_the_gradient_of_v_is_u_transposed_times_that_of_w():
    us = dictionaries("gaussian", 8, 3, columns=2, generator=seeded())
    layer = Predicted(us, 6, generator=seeded(1))
    x = torch.randn(5, 8, generator=seeded(2))
    w = layer.weight.detach().requires_grad_()
    layer(x).square().sum().backward()
    (x @ w + layer.bias.detach()).square().sum().backward()
    for u, v, g in zip(us, layer.v, w.grad.split(3, dim=1), strict=True):
        torch.testing.assert_close(v.grad, u.T @ g)
    assert all(u.grad is None for u in layer.u)


def test_it_computes_x_times_w():
    us = dictionaries("gaussian", 8, 3, columns=3, generator=seeded())
    layer = Predicted(us, 6, generator=seeded())
    x = torch.randn(5, 8, generator=seeded())
    torch.testing.assert_close(layer(x), x @ layer.weight + layer.bias)


@pytest.mark.parametrize("kind", ["kernel", "gaussian", "connections", "low_rank"])
def test_weights_start_as_large_as_those_of_a_dense_layer(kind):
    us = dictionaries(kind, 64, 16, kernel=kernel(64), generator=seeded())
    layer = Predicted(us, 50, train_u=kind == "low_rank", generator=seeded())
    dense = nn.Linear(64, 50).weight.detach().std()
    assert layer.weight.detach().square().mean().sqrt().item() == pytest.approx(
        dense.item(), rel=0.05
    )
    trained = {"kernel": 0.25, "low_rank": (64 * 16 + 16 * 50) / (64 * 50)}
    assert layer.learned == pytest.approx(trained.get(kind, 0.25))


def test_alike_inputs_have_a_large_kernel():
    k = squared_exponential(grid(2, 2), 1.5)
    assert k[0].tolist() == pytest.approx([1.0, exp(-1 / 4.5), exp(-1 / 4.5), exp(-2 / 4.5)])
    x = torch.randn(500, 1, generator=seeded())
    found = covariance(torch.cat([x, 2 * x + 3], dim=1))
    torch.testing.assert_close(found[0, 1], 2 * found[0, 0])
    assert torch.equal(covariance(x, squared=True), covariance(x).square())


def test_atoms_and_combinations_make_the_fitted_convolution():
    conv = nn.Conv2d(2, 6, 3, padding=1, stride=2)
    space = torch.kron(torch.eye(2).double(), squared_exponential(grid(3, 3), 1.0))
    us = dictionaries("kernel", 18, 5, columns=2, kernel=space, generator=seeded())
    with torch.no_grad():
        for i, u in enumerate(us):
            v = torch.randn(5, 3, generator=seeded(i))
            conv.weight[3 * i : 3 * i + 3] = (u @ v).T.reshape(3, 2, 3, 3)
    layer = predicted_conv(conv, us)
    x = torch.randn(2, 2, 7, 7, generator=seeded())
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-3, atol=1e-3)
    assert [p.requires_grad for p in layer.parameters()] == [False, True, True]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="cannot learn 7 of 6 values an output; use 1 to 6"):
        dictionaries("gaussian", 6, 7, generator=seeded())
    with pytest.raises(ShapeError, match=r"over 6 inputs needs \(6, 6\), found none"):
        dictionaries("kernel", 6, 2, generator=seeded())
    us = dictionaries("gaussian", 6, 2, columns=2, generator=seeded())
    with pytest.raises(ShapeError, match="cannot share 5 outputs among 2 columns"):
        Predicted(us, 5, generator=seeded())
    with pytest.raises(ShapeError, match="2 dictionaries over 6 coordinates do not fit a convo"):
        predicted_conv(nn.Conv2d(1, 2, 3), us)


def test_coordinates_are_drawn_without_replacement():
    found = choose(10, 10, seeded())
    assert found.tolist() == list(range(10))


def smooth(outputs, width=2.0):
    """Filters over an 8 x 8 picture that vary slowly."""
    spread = squared_exponential(grid(8, 8), width).float()
    noise = torch.randn(outputs, 64, generator=seeded())
    layer = nn.Linear(64, outputs)
    with torch.no_grad():
        layer.weight.copy_(F.normalize(noise @ spread))
    return layer


def test_smooth_filters_are_predictable_and_random_ones_are_not():
    found = redundancy(nn.Sequential(smooth(400), nn.Linear(400, 200)))
    assert found["0.weight"].predicted > 0.95
    assert -0.05 < found["1.weight"].predicted < 0.02


def test_more_shown_weights_predict_more():
    model = smooth(100, 1.0)
    share = [redundancy(model, fraction=f)["weight"].predicted for f in (0.05, 0.2, 0.5)]
    assert share == sorted(share)
    assert share[0] < share[2] - 0.1


def test_the_layers_are_those_large_enough_to_say_anything():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 8, 3, groups=2), nn.Linear(4, 8))
    found = redundancy(net)
    assert set(found) == {"1.weight", "2.weight"}
    assert found["1.weight"].shape == (8, 1, 3, 3)
    again = redundancy(net)
    assert again == found


def test_weights_of_zero_are_predicted():
    layer = nn.Linear(8, 8)
    nn.init.zeros_(layer.weight)
    assert redundancy(layer)["weight"].predicted == 1.0


def test_a_fraction_that_hides_nothing_is_refused():
    with pytest.raises(BudgetError, match="from a fraction of 1; use one between 0 and 1"):
        redundancy(nn.Linear(8, 8), fraction=1.0)
