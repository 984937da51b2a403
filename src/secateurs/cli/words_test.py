import pytest

from secateurs.cli.words import sized, target_of
from secateurs.core.errors import BudgetError
from secateurs.methods.task import Target


def test_a_size_is_an_option_of_deep_compression():
    assert sized("magnitude", 0, 0.0, None) == ("magnitude", [])
    assert sized("magnitude", 900, 0.0, None) == ("deep_compression", ["bytes=900"])
    assert sized("deep_compression", 0, 40.0, None) == ("deep_compression", ["ratio=40.0"])
    assert sized("magnitude", 0, 0.0, 0.5) == ("deep_compression", [])


def test_two_sizes_or_another_method_are_refused():
    with pytest.raises(BudgetError, match="--bytes and --ratio are several targets; pass one"):
        sized("magnitude", 900, 2.0, None)
    with pytest.raises(BudgetError, match="--max-drop is a target of deep_compression, not of obd"):
        sized("obd", 0, 0.0, 1.0)


def test_one_target_in_multiples():
    assert target_of(None, 0.5, None, 8) == Target("macs", 0.5, multiple_of=8)
    with pytest.raises(BudgetError, match="no target given; pass exactly one of"):
        target_of(None, None, None, 8)
