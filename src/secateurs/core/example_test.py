import pytest
import torch
from torch import nn

from secateurs.core.example import arguments, call, floats, map_tensors, tensors

X, Y = torch.ones(2), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize(
    ("example", "args", "kwargs"),
    [(X, (X,), {}), ([X, 3], (X, 3), {}), ((X,), (X,), {}), ({"x": X}, (), {"x": X})],
)
def test_an_example_is_a_tensor_a_sequence_or_a_mapping(example, args, kwargs):
    assert arguments(example) == (args, kwargs)


class Echo(nn.Module):
    def forward(self, x, y=None):
        return {"x": x, "y": [y]}


def test_a_model_is_called_as_the_example_says():
    for example in ((X, Y), {"y": Y, "x": X}):
        assert call(Echo(), example) == {"x": X, "y": [Y]}


def test_floats_change_and_integers_stay():
    out = floats({"x": [X, Y], "n": 3}, torch.float64)
    assert (out["x"][0].dtype, out["x"][1].dtype, out["n"]) == (torch.float64, torch.long, 3)


def test_tensors_are_found_at_any_depth_in_order():
    assert tensors({"a": [X, 3], "b": (Y, None)}) == [X, Y]


def test_map_tensors_keeps_the_nesting():
    assert map_tensors(lambda t: t.numel(), {"a": [X, "s"], "b": (Y,)}) == {
        "a": [2, "s"],
        "b": (3,),
    }
