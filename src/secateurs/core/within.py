"""The numbers that an option takes, said once, where the option is declared."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from math import inf, isfinite
from typing import Annotated, ParamSpec, TypeVar, get_args

from secateurs.core.errors import OptionError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Within:
    """A range of finite numbers, its ends among them.

    >>> str(Within(0, 1)), str(Within(1)), str(Within(0, above=True)), str(Within())
    ('0 to 1', '1 or more', 'above 0', 'a finite number')
    """

    low: float = -inf
    high: float = inf
    above: bool = False
    """Whether `low` itself is left out."""

    def check(self, name: str, value: float) -> None:
        """Raise `OptionError` unless the value of that name lies within."""
        fits = self.low < value if self.above else self.low <= value
        if not (fits and value <= self.high and isfinite(value)):
            raise OptionError(f"{name} is {value:g}; use {self}")

    def __str__(self) -> str:
        """Show the range as an error does."""
        if (self.low, self.high) == (-inf, inf):
            return "a finite number"
        if self.high == inf:
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        between = "and up to" if self.above else "to"
        return f"{'above ' * self.above}{self.low:g} {between} {self.high:g}"


Number = Annotated[float, Within()]
Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]
Amount = Annotated[float, Within(0)]
Positive = Annotated[float, Within(0, above=True)]
Proportion = Annotated[float, Within(0, 1)]
Part = Annotated[float, Within(0, 1, above=True)]
"""A fraction of which nothing is not enough."""


def limits(function: Callable[..., object]) -> dict[str, Within]:
    """List the ranges that a function's annotations name, by parameter."""
    parameters = inspect.signature(function).parameters.items()
    found = {name: get_args(p.annotation)[1:] for name, p in parameters}
    return {n: r for n, ranges in found.items() for r in ranges if isinstance(r, Within)}


def check_within(function: Callable[..., object], values: Mapping[str, object]) -> None:
    """Raise `OptionError` unless values, by parameter, lie within the ranges of a function."""
    for name, limit in limits(function).items():
        value = values.get(name)
        if isinstance(value, int | float):
            limit.check(name, value)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse numbers outside the ranges that its annotations name.

    Of those passed by name, such as all options of a method.

    >>> @checked
    ... def half(*, share: Proportion = 0.5) -> float:
    ...     return share / 2
    >>> half(share=1.5)
    Traceback (most recent call last):
    secateurs.core.errors.OptionError: share is 1.5; use 0 to 1
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_within(function, kwargs)
        return function(*args, **kwargs)

    return call
