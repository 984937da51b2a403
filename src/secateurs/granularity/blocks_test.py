import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.errors import EvidenceError, ShapeError
from secateurs.granularity.blocks import Blocks
from secateurs.testing.laws import (
    gathering_what_was_scattered_returns_the_decision,
    units_share_no_position,
)

SITE = Blocks("w", shape=(2, 4), block=(1, 2))


def test_rows_follow_the_stored_order():
    assert SITE.gather({"w": torch.arange(8).view(2, 4)}).tolist() == [
        [0, 1], [2, 3], [4, 5], [6, 7]
    ]  # fmt: skip


def test_units_may_be_numbered_along_another_axis():
    site = Blocks("w", (2, 4), (1, 2), order=(1, 0))
    assert site.gather({"w": torch.arange(8).view(2, 4)})[:, 0].tolist() == [0, 4, 2, 6]
    keep = torch.tensor([True, False, True, True])
    assert site.scatter(keep)["w"].tolist() == [[True] * 4, [False, False, True, True]]


def test_order_survives_a_round_trip_over_three_axes():
    site = Blocks("w", (2, 3, 4), (1, 1, 2), order=(1, 2, 0))
    for unit in range(site.units):
        keep = torch.arange(site.units) == unit
        assert torch.equal(site.gather(site.scatter(keep)).all(dim=1), keep)


def test_evidence_of_length_1_is_repeated_so_that_columns_agree():
    evidence = torch.tensor([[10], [20]])
    assert SITE.gather({"w": evidence}).tolist() == [[10, 10], [10, 10], [20, 20], [20, 20]]


def test_missing_evidence_names_the_parameter():
    with pytest.raises(EvidenceError, match="nothing was measured about 'w', only about v"):
        SITE.gather({"v": torch.ones(2, 4)})


@pytest.mark.parametrize("shape", [(4, 2), (8,), (2, 4, 1)])
def test_evidence_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match=r"evidence about 'w' has shape .* the parameter \(2, 4\)"):
        SITE.gather({"w": torch.ones(shape)})


def test_a_decision_of_another_length_is_refused():
    with pytest.raises(ShapeError, match=r"a decision about 'w' has shape \(3,\).*4 units"):
        SITE.scatter(torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("block", [(1, 3), (0, 1), (1,), (1, 2, 1)])
def test_blocks_that_do_not_fill_the_parameter_are_refused(block):
    with pytest.raises(ShapeError, match="do not fill 'w' of shape"):
        Blocks("w", (2, 4), block)


@pytest.mark.parametrize("among", [0, 3])
def test_pools_that_do_not_divide_the_units_are_refused(among):
    with pytest.raises(ShapeError, match=f"pools of {among} do not divide the 4 units of 'w'"):
        Blocks("w", (2, 4), (1, 2), among)


@settings(deadline=None)
@given(st.data())
def test_any_blocks_in_any_order_obey_the_laws(data):
    lengths = st.tuples(st.integers(1, 3), st.integers(1, 3))
    axes = data.draw(st.lists(lengths, min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(axes))))
    shape, block = tuple(n * b for n, b in axes), tuple(b for _, b in axes)
    site = Blocks("w", shape, block, order=tuple(order))
    gathering_what_was_scattered_returns_the_decision(site)
    units_share_no_position(site)
    # The last axis of the order is numbered fastest.
    corners = site.gather({"w": torch.arange(math.prod(shape)).view(shape)})[:, 0]
    steps = [math.prod(shape[d + 1 :]) * b for d, b in enumerate(block)]
    grids = torch.meshgrid(*(torch.arange(site.grid[d]) * steps[d] for d in order), indexing="ij")
    assert torch.equal(corners, sum(grids).flatten())
