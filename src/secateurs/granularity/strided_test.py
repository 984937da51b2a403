import pytest
import torch
from torch.nn import functional as F

from secateurs.core.errors import ShapeError
from secateurs.granularity.strided import Strided


def kept(site, offsets):
    """Keep one offset per pool."""
    pools = F.one_hot(torch.tensor(offsets), site.stride).bool()
    return site.scatter(pools.flatten())["w"]


def test_an_offset_holds_every_sth_position_of_the_flattened_kernel():
    site = Strided("w", (1, 1, 3, 3), stride=2)
    assert kept(site, [1]).int().tolist() == [[[[0, 1, 0], [1, 0, 1], [0, 1, 0]]]]


@pytest.mark.parametrize(("stride", "counts"), [(2, [13, 12]), (3, [9, 8, 8])])
def test_offsets_of_a_5x5_kernel_hold_as_many_positions_as_the_paper_says(stride, counts):
    site = Strided("w", (1, 1, 5, 5), stride)
    assert [int(kept(site, [offset]).sum()) for offset in range(stride)] == counts


def test_short_offsets_are_padded_with_zeros():
    site = Strided("w", (1, 1, 1, 3), stride=2)
    assert site.gather({"w": torch.tensor([[[[1, 2, 3]]]])}).tolist() == [[1, 3], [2, 0]]


def test_filters_share_the_offset_of_an_input_channel():
    site = Strided("w", (4, 2, 1, 2), stride=2)
    assert site.units == 4
    assert (kept(site, [0, 1]) == torch.tensor([[[1, 0]], [[0, 1]]]).bool()).all()


def test_kernels_may_have_offsets_of_their_own():
    site = Strided("w", (2, 2, 1, 2), stride=2, shared=False)
    assert kept(site, [0, 1, 1, 0]).flatten(2).int().tolist() == [
        [[1, 0], [0, 1]],
        [[0, 1], [1, 0]],
    ]


def test_shared_offsets_leave_the_lowered_product_as_whole_columns():
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    site = Strided("w", (6, 2, 3, 3), stride=2, groups=1)
    mask = kept(site, [0, 1])
    columns = mask.flatten(1).any(dim=0)
    assert int(columns.sum()) == 5 + 4
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    lowered = F.unfold(x, 3)[:, columns]
    small = weight.flatten(1)[:, columns] @ lowered
    torch.testing.assert_close(small.view(2, 6, 3, 4), F.conv2d(x, weight * mask))


def test_groups_read_different_input_channels():
    site = Strided("w", (4, 1, 1, 2), stride=2, groups=2)
    assert kept(site, [0, 1]).flatten(1).int().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_a_transposed_convolution_shares_along_its_first_axis():
    site = Strided("w", (2, 3, 1, 2), stride=2, transposed=True)
    assert kept(site, [0, 1])[:, :, 0].int().tolist() == [[[1, 0]] * 3, [[0, 1]] * 3]


@pytest.mark.parametrize("stride", [1, 5])
def test_a_stride_that_leaves_no_choice_is_refused(stride):
    with pytest.raises(ShapeError, match=rf"a stride of {stride} does not fit the 4 .* use 2 to 4"):
        Strided("w", (1, 1, 2, 2), stride)
