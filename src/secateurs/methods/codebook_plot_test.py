import torch
from torch import tensor

from secateurs.methods.codebook_plot import draw, used
from secateurs.realise.coding.shared import Shared

INDEX = tensor([[0, 2, -1], [2, 0, 3]])
BEFORE = Shared(tensor([-1.0, 9.0, 0.5, 2.0]), INDEX)
AFTER = Shared(tensor([-1.25, 9.0, 0.75, 2.5]), INDEX)


def test_values_that_no_weight_has_are_left_out():
    assert used(BEFORE) == [-1.0, 0.5, 2.0]


def test_every_layer_has_its_histogram_and_both_sets_of_values():
    weights = {"fc1.weight": torch.randn(2, 3), "fc2.weight": torch.randn(2, 3)}
    drawn = draw(weights, dict.fromkeys(weights, BEFORE), dict.fromkeys(weights, AFTER))
    assert drawn.lstrip().startswith("<?xml")
    for word in ("fc1.weight", "fc2.weight", "values before tuning", "after"):
        assert word in drawn
    assert drawn == draw(weights, dict.fromkeys(weights, BEFORE), dict.fromkeys(weights, AFTER))
    moved = dict.fromkeys(weights, BEFORE)
    assert drawn != draw(weights, moved, moved)


def test_many_values_still_make_a_small_file():
    weight = torch.randn(64, 64)
    index = torch.arange(4096).view(64, 64) % 256
    table = Shared(torch.linspace(-1, 1, 256), index)
    assert len(draw({"w": weight}, {"w": table}, {"w": table})) < 60_000


def test_a_layer_without_weights_and_a_network_without_layers_are_drawn():
    empty = Shared(tensor([1.0]), tensor([[-1, -1]]))
    assert "w" in draw({"w": torch.zeros(1, 2)}, {"w": empty}, {"w": empty})
    assert "<svg" in draw({}, {}, {})
