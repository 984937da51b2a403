import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.realise.coding.units import from_units, to_units

SHAPE = (4, 3, 2, 5)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1), (0, 1, 2), (0, 2, 3)])
@settings(deadline=None)
@given(seed=st.integers(0, 99))
def test_structured_masks_are_found_and_read_back(axes, seed):
    sizes = [SHAPE[axis] for axis in axes]
    units = np.random.default_rng(seed).random(sizes) < 0.5
    mask = from_units(axes, np.asarray(units), SHAPE)
    found, kept = to_units(mask)
    assert len(found) <= len(axes)
    assert (from_units(found, kept, SHAPE) == mask).all()


def test_scattered_weights_have_no_units():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    assert to_units(mask) is None
