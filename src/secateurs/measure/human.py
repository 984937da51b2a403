"""Numbers as people read them."""

import re


def count(n: float | None) -> str:
    """Show a count with three digits and a magnitude.

    >>> count(431_080), count(812), count(None)
    ('431 k', '812', '-')
    """
    return "-" if n is None else _scaled(n, 1000, ("", " k", " M", " G", " T"))


def size(n: float | None) -> str:
    """Show a number of bytes; 1 kB is 1000 bytes.

    >>> size(1_724_320), size(90)
    ('1.72 MB', '90 B')
    """
    return "-" if n is None else _scaled(n, 1000, (" B", " kB", " MB", " GB", " TB"))


def duration(seconds: float | None) -> str:
    """Show a time.

    >>> duration(0.0123), duration(4.2e-5), duration(3)
    ('12.3 ms', '42.0 µs', '3.00 s')
    """
    if seconds is None:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * scale:
            return f"{three(seconds / scale)} {unit}"
    return f"{three(seconds * 1e9)} ns"


def percent(share: float | None, digits: int = 2) -> str:
    """Show a fraction as a percentage.

    >>> percent(0.98765)
    '98.77 %'
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def less(base: float | None, now: float | None) -> str:
    """Say how much smaller a cost has become; empty where nothing changed or was measured.

    >>> less(300, 100), less(100, 100), less(100, 150)
    ('3.00x less', '', '1.50x more')
    """
    if not base or not now:
        return ""
    words = f"{three(base / now)}x less" if base > now else f"{three(now / base)}x more"
    return "" if words.startswith("1.00x") else words


def points(base: float | None, now: float | None) -> str:
    """Say how far a fraction has moved, in percentage points.

    >>> points(0.98, 0.975)
    '-0.50 points'
    """
    return "" if base is None or now is None else f"{100 * (now - base):+.2f} points"


def round_mark(words: str) -> str:
    """Shorten a text for the mark of an axis: no decimals that are zero.

    >>> round_mark("15.0 M"), round_mark("2.50 ms")
    ('15 M', '2.5 ms')
    """
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", words).replace(". ", " ").removesuffix(".")


def _scaled(n: float, step: int, units: tuple[str, ...]) -> str:
    if n < step:
        return f"{n:.0f}{units[0]}"
    power = 0
    while power + 1 < len(units) and n >= 0.9995 * step:
        n, power = n / step, power + 1
    return three(n) + units[power]


def three(x: float) -> str:
    """Show a number from 1 on with three significant digits, smaller ones with two decimals.

    >>> three(29.18), three(1.8)
    ('29.2', '1.80')
    """
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}"
