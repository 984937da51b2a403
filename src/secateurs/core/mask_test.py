import pytest
import torch

from secateurs.core.mask import Mask


def mask(**rows):
    return Mask({name: torch.tensor(row, dtype=torch.bool) for name, row in rows.items()})


def test_and_keeps_what_both_keep_and_leaves_both_as_they_are():
    a, b = mask(w=[1, 1, 0], v=[0]), mask(w=[1, 0, 0], u=[1])
    both = a & b
    assert {name: t.tolist() for name, t in both.items()} == {
        "w": [True, False, False],
        "v": [False],
        "u": [True],
    }
    assert (a["w"].tolist(), b["w"].tolist()) == ([True, True, False], [True, False, False])


def test_counts_are_over_the_masked_parameters():
    m = mask(w=[1, 1, 0], v=[0])
    assert (m.kept, m.total, m.density, len(m)) == (2, 4, 0.5, 2)
    assert repr(m) == "Mask(2 parameters, density 0.5)"


def test_nothing_masked_is_density_1():
    assert Mask({}).density == 1.0


def test_later_changes_to_the_tensors_do_not_reach_the_mask():
    keep = torch.tensor([True])
    m = Mask({"w": keep})
    keep.zero_()
    assert m["w"].item()


def test_numbers_become_bools():
    assert Mask({"w": torch.tensor([0.0, 0.5])})["w"].tolist() == [False, True]


def test_an_unmasked_parameter_has_no_entry():
    assert "v" not in mask(w=[1])
    with pytest.raises(KeyError):
        mask(w=[1])["v"]
