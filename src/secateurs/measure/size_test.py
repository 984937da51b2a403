import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from secateurs.core.errors import FileError
from secateurs.measure.size import effective, file_bytes, nonzeros, parameters


class Times(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def tied():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    return net


def test_a_tied_parameter_counts_once():
    assert parameters(tied()) == nonzeros(tied()) == 16


def test_buffers_are_not_parameters():
    assert parameters(nn.BatchNorm1d(5)) == 10


def test_non_zeros_are_counted_under_the_mask():
    net = nn.Linear(3, 2)
    nn.init.ones_(net.weight), nn.init.ones_(net.bias)
    mask = torch.tensor([[1.0, 0, 0], [1, 1, 0]])
    parametrize.register_parametrization(net, "weight", Times(mask))
    assert (nonzeros(net), parameters(net)) == (3 + 2, 8)


def test_effective_values_have_the_names_of_the_bare_model():
    net = nn.Sequential(nn.Linear(3, 2))
    parametrize.register_parametrization(net[0], "weight", Times(torch.zeros(2, 3)))
    values = dict(effective(net))
    assert set(values) == {"0.weight", "0.bias"}
    assert values["0.weight"].count_nonzero() == 0


def test_a_folder_is_as_long_as_its_files(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"4567")
    assert file_bytes(tmp_path / "a") == 3
    assert file_bytes(tmp_path) == 7


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"there is no file '.*gone' to measure; save"):
        file_bytes(tmp_path / "gone")
