"""Estimates and their 95 % intervals in words; the interval's width decides the number of decimals.

with_interval(0.8512, 0.178, 1.862)     # ("0.85", "95 % interval 0.18 to 1.86")
"""

import math

BOTH_OPEN = "its 95 % interval goes past the layers patched at both ends"
OPEN_ENDS = ("from before the first layer patched", "after the last layer patched")


def with_interval(
    value: float,
    low: float | None,
    high: float | None,
    sign: str = "-",
    open_ends: tuple[str, str] = OPEN_ENDS,
    none: str = "",
) -> tuple[str, str]:
    """The estimate and its interval, all numbers with the same decimals; `none` in place of one without limits.

    A limit that is None lies outside the layers patched, as `open_ends` say. `sign` "+" gives every number its sign.
    """
    form = f"{sign}.{decimals(value, low, high)}f"
    if low is None and high is None:
        return number(value, form), none
    ends = [end if limit is None else number(limit, form) for limit, end in zip((low, high), open_ends, strict=True)]
    return number(value, form), f"95 % interval {ends[0]} to {ends[1]}"


def decimals(value: float, low: float | None, high: float | None) -> int:
    """Decimals that show half of the interval's width in two digits, 0 to 3; 2 where the width is 0 or unknown.

    There are more where the interval excludes 0 and one of its limits would be shown as 0.
    """
    half = max((abs(limit - value) for limit in (low, high) if limit is not None), default=0)
    if low is not None and high is not None:
        half = (high - low) / 2
    found = min(3, max(0, 1 - math.floor(math.log10(half)))) if half > 0 else 2
    excludes_0 = low is not None and high is not None and low * high > 0
    while excludes_0 and found < 3 and round(min(abs(low), abs(high)), found) == 0:
        found += 1
    return found


def number(value: float, form: str) -> str:
    """A number with the typographic minus sign, and no sign before a 0."""
    text = format(value, form)
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def p_text(p: float) -> str:
    """A p value in words, as "p = 0.02"; near 0.05 with three decimals, so that a reader sees on which side it is."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{3 if p < 0.01 or 0.045 <= p < 0.055 else 2}f}"
