"""What every number that a method takes must obey: it has a range, and nothing else is taken."""

from math import inf, nan

import pytest

from secateurs.core.errors import OptionError
from secateurs.core.within import limits
from secateurs.methods.table import METHODS, method, options_of

NUMBERS = [
    (name, option)
    for name, function in METHODS.items()
    for option, parameter in options_of(function).items()
    if type(parameter.default) in (int, float)
]


def limit(name, option):
    return limits(METHODS[name])[option]


def outside(name, option):
    within = limit(name, option)
    yield from (within.low - 1, nan, inf)
    if within.above:
        yield within.low
    if within.high < inf:
        yield within.high + 1


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_has_a_range_and_its_default_lies_within(name, option):
    limit(name, option).check(option, options_of(METHODS[name])[option].default)


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_out_of_range_is_refused_before_anything_is_looked_at(name, option):
    for value in outside(name, option):
        with pytest.raises(OptionError, match=f"^{option} is {value:g}; use {limit(name, option)}"):
            METHODS[name](None, None, **{option: value})
        with pytest.raises(OptionError, match=f"^{option} is "):
            method(name, {option: value})
