from pathlib import Path

import pytest

from secateurs.cli.words import amount, sized, target_of
from secateurs.core.errors import BudgetError
from secateurs.methods.task import Target

NONE = {"bytes": None, "ratio": None, "max_drop": None}
SHARES = {"density": None, "macs": None, "params": None}


def test_a_size_is_an_option_of_deep_compression():
    assert sized("magnitude", NONE) == ("magnitude", [])
    assert sized("magnitude", NONE | {"bytes": 900}) == ("deep_compression", ["bytes=900"])
    assert sized("deep_compression", NONE | {"ratio": 40.0})[1] == ["ratio=40.0"]
    assert sized("magnitude", NONE | {"max_drop": 0.5}) == ("deep_compression", [])


def test_two_sizes_or_another_method_are_refused():
    with pytest.raises(BudgetError, match="--bytes and --ratio are several targets; pass one"):
        sized("magnitude", NONE | {"bytes": 900, "ratio": 2.0})
    with pytest.raises(BudgetError, match="--max-drop is a target of deep_compression, not of obd"):
        sized("obd", NONE | {"max_drop": 1.0})


def test_a_plan_or_a_size_says_how_much_stays():
    half, free = SHARES | {"macs": 0.5}, Target("density", 1.0)
    assert amount("obd", half, NONE, 8) == ("obd", Target("macs", 0.5, multiple_of=8), [])
    assert amount("obd", SHARES, NONE, plan=Path("p")) == ("planned", free, ["plan=p"])
    assert amount("magnitude", SHARES, NONE | {"bytes": 9}) == (
        "deep_compression",
        free,
        ["bytes=9"],
    )
    with pytest.raises(BudgetError, match="--plan says how much stays; leave --macs out"):
        amount("obd", half, NONE, plan=Path("p"))
    with pytest.raises(BudgetError, match="a file's size says how much stays; leave --multiple-of"):
        amount("magnitude", SHARES, NONE | {"ratio": 2.0}, 8)


def test_one_target_in_multiples():
    assert target_of(None, 0.5, None, 8) == Target("macs", 0.5, multiple_of=8)
    with pytest.raises(BudgetError, match="no target given; pass exactly one of"):
        target_of(None, None, None, 8)
