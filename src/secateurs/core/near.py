"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str], *, most: int = 20) -> str:
    """Say which of the `known` names are close to `name`, or list them, for an error message.

    >>> near("resnet21", ["resnet20", "lenet5"])
    'did you mean resnet20?'
    >>> near("zzz", ["resnet20", "lenet5"])
    'known: lenet5, resnet20'
    """
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    if close:
        return f"did you mean {', '.join(close)}?"
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return f"known: {', '.join(known[:most]) or 'none'}{rest}"
