"""Choosing sites by glob patterns on their names."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from secateurs.core.errors import UnknownNameError

Patterns = str | Sequence[str] | None
"""One glob pattern or several; `*` also crosses dots."""


def chosen(
    spellings: Mapping[str, Sequence[str]], include: Patterns, exclude: Patterns
) -> list[str]:
    """List the names that some `include` pattern matches and no `exclude` pattern does.

    Args:
        spellings: every name, and all the ways to write it that a pattern may match.
        include: None takes every name.
        exclude: None leaves nothing out.

    Raises:
        UnknownNameError: a pattern matches nothing; lists the names.
    """
    taken = set(spellings) if include is None else _matches(spellings, include, "include")
    left = set() if exclude is None else _matches(spellings, exclude, "exclude")
    names = [name for name in spellings if name in taken and name not in left]
    if not names:
        raise UnknownNameError(
            f"include={include!r} and exclude={exclude!r} leave nothing of {_listed(spellings)}"
        )
    return names


def _matches(spellings: Mapping[str, Sequence[str]], patterns: Patterns, option: str) -> set[str]:
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
        names = {
            name
            for name, ways in spellings.items()
            if any(fnmatchcase(way, pattern) for way in (name, *ways))
        }
        if not names:
            raise UnknownNameError(
                f"{option}={pattern!r} matches nothing; there are {_listed(spellings)}"
            )
        found |= names
    return found


def _listed(names: Mapping[str, object], most: int = 40) -> str:
    shown = ", ".join(list(names)[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "") or "no names"
