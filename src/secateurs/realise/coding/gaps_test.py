import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.realise.coding.gaps import from_gaps, to_gaps

masks = st.lists(st.booleans(), max_size=300).map(lambda bits: np.array(bits, bool))


@settings(deadline=None)
@given(masks, st.sampled_from([3, 4, 5, 8]))
def test_places_hold_every_kept_weight_and_fillers_reach_as_far_as_they_can(mask, bits):
    fields, places = to_gaps(mask, bits)
    assert fields.min(initial=0) >= 0
    assert fields.max(initial=0) < 1 << bits
    assert set(np.flatnonzero(mask)) <= set(places)
    assert (fields[~mask[places]] == (1 << bits) - 1).all()
    assert (from_gaps(fields) == places).all()


def test_zeros_after_the_last_weight_take_nothing():
    fields, _ = to_gaps(np.array([True] + [False] * 1000), 3)
    assert fields.tolist() == [0]


@pytest.mark.parametrize(("gap", "fields"), [(8, [7]), (9, [7, 0]), (16, [7, 7]), (17, [7, 7, 0])])
def test_a_gap_at_the_limit_needs_no_filler(gap, fields):
    mask = np.zeros(40, bool)
    mask[gap - 1] = True
    assert to_gaps(mask, 3)[0].tolist() == fields
