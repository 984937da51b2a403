import pytest
import torch
from torch import nn

from secateurs.core.errors import FileError
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.coding.container import write
from secateurs.realise.factored import Factored, factors, split_kernel, split_outputs, unrolled
from secateurs.realise.packed import about, held, load

KINDS = [
    {"padding": 1},
    {"stride": (2, 1), "padding": (0, 2)},
    {"dilation": 2, "padding": "same"},
    {"bias": False},
]


def conv(**options):
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, (3, 5), **options).double()


X = torch.randn(2, 4, 11, 12, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_column_and_a_row_of_full_rank_are_the_convolution(options):
    whole = conv(**options)
    torch.testing.assert_close(split_kernel(whole, 12)(X), whole(X))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_all_outputs_through_an_orthogonal_map_are_the_convolution(options):
    whole = conv(**options)
    axes = torch.linalg.qr(torch.randn(6, 6).double()).Q
    bias = torch.zeros(6) if whole.bias is None else whole.bias
    torch.testing.assert_close(split_outputs(whole, axes, axes.T, bias)(X), whole(X))


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_lower_rank_loses_the_singular_values_that_it_leaves_out(rank):
    whole = conv()
    column, row = (part.weight.detach() for part in split_kernel(whole, rank))
    made = torch.einsum("rchi,nrjw->nchw", column, row)
    left_out = torch.linalg.svdvals(unrolled(whole.weight))[rank:]
    gap = (made - whole.weight).square().sum()
    torch.testing.assert_close(gap, left_out.square().sum())


def test_groups_and_mirrored_borders_stay():
    assert factors(nn.Conv2d(4, 4, 3, padding=1))
    assert not factors(nn.Conv2d(4, 4, 3, groups=2))
    assert not factors(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 3, 1, bias=False)

    def forward(self, x):
        return self.b(self.a(x).relu())


def factored():
    torch.manual_seed(0)
    model = Net()
    model.a = Factored(*split_kernel(model.a, 2), nn.Conv2d(6, 6, 1))
    return model.eval()


def test_a_checkpoint_and_a_packed_file_bring_it_back(tmp_path):
    model, x = factored(), X.float()
    save_checkpoint(tmp_path / "small", model)
    torch.testing.assert_close(load_checkpoint(tmp_path / "small", Net())(x), model(x))
    write(tmp_path / "small.secz", held(model), about(model, None))
    fresh = Net()
    torch.testing.assert_close(load(tmp_path / "small.secz", fresh)(x), model(x))
    assert isinstance(fresh.a, nn.Conv2d)


def test_sizes_that_do_not_fit_the_tensors_are_refused(tmp_path):
    model = factored()
    told = about(model, None)
    told["thin"]["a"]["convolutions"][0]["out_channels"] = 1 << 40
    write(tmp_path / "bad.secz", held(model), told)
    with pytest.raises(FileError, match="thin layer 'a'"):
        load(tmp_path / "bad.secz", Net())
    told["thin"] = {"no.such": {"convolutions": []}}
    write(tmp_path / "bad.secz", held(model), told)
    with pytest.raises(FileError, match=r"'no.such' cannot be built"):
        load(tmp_path / "bad.secz", Net())
