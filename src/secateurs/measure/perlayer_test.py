import torch
from torch import nn

from secateurs.measure.perlayer import layer_rows
from secateurs.realise.lowered import lowered


def test_density_with_and_without_biases_and_dead_units():
    net = nn.Sequential(nn.Linear(2, 4))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [0, 0], [1, 1], [0, 0]]))
        net[0].bias.copy_(torch.tensor([1.0, 0, 1, 1]))
    (row,) = layer_rows(net, "net")
    assert (row.name, row.shape, row.model) == ("0.weight", (4, 2), "net")
    assert (row.density, row.density_with_biases) == (3 / 8, 6 / 12)
    assert (row.dead_units, row.units) == (2, 4)


def test_units_of_a_transposed_convolution_are_its_outputs():
    net = nn.ConvTranspose2d(2, 3, 1)
    with torch.no_grad():
        net.weight[:, 1] = 0
    (row,) = layer_rows(net, "net")
    assert (row.dead_units, row.units) == (1, 3)


def test_a_traced_program_has_rows_for_its_weights():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    program = torch.export.export(net.eval(), (torch.zeros(1, 1, 4, 4),)).module()
    (row,) = layer_rows(program, "net")
    assert (row.name, row.weights, row.biases) == ("0.weight", 18, 2)


def test_thinner_products_are_rows_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3))
    keep = (torch.arange(9) < 5).view(1, 1, 3, 3).expand(4, 1, 3, 3)
    linear, thin = layer_rows(lowered(model, {"0.weight": keep}), "thin")
    assert (linear.name, thin.name) == ("2.weight", "0.weight")
    assert thin.shape == (4, 10)
    assert (thin.weights, thin.nonzeros, thin.biases, thin.units) == (20, 20, 4, 4)
    assert thin.dead_units == 0
