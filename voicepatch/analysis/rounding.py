"""Estimates and their 95 % intervals in words; the interval's width decides the number of decimals.

with_interval(0.8512, 0.178, 1.862)     # ("0.85", "95 % interval 0.18 to 1.86")
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

BOTH_OPEN = "its 95 % interval goes past the layers patched at both ends"
# Columns whose limits are not called by their name.
LIMITS = {
    "difference": ("low", "high"),
    "effect": ("limit_low", "limit_high"),
    "hand_over_layer": ("low", "high"),
}
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


def rate_text(value: float, low: float | None = None, high: float | None = None) -> str:
    """A rate in percent with the decimals that its limits allow; whole percents without limits."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return f"{value:.0%}"
    return f"{value:.{min(1, decimals(100 * value, 100 * low, 100 * high))}%}"


def estimate_text(row: Mapping[str, Any], column: str, sign: str = "-") -> str:
    """The estimate in a column of a row with as many decimals as its limits allow, in percent for a rate; 2 without."""
    limits = [row.get(limit) for limit in LIMITS.get(column, (f"{column}_low", f"{column}_high"))]
    low, high = (None if limit is None or pd.isna(limit) else float(limit) for limit in limits)
    if column.endswith(("_rate", "_rate_eligible")):
        return rate_text(row[column], low, high)
    return number(row[column], f"{sign}.{decimals(row[column], low, high)}f")


def with_digits(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose numbers with limits are text, estimate and limits with the same decimals.

    The limits of a column NAME are `NAME_low` and `NAME_high`, or those of `LIMITS`. Other columns stay as they are.
    """
    shown: dict[str, list[str | None]] = {}
    for name in table.columns:
        columns = [name, *LIMITS.get(name, (f"{name}_low", f"{name}_high"))]
        if all(column in table and pd.api.types.is_float_dtype(table[column]) for column in columns):
            rows = [_same_digits(*row) for row in table[columns].itertuples(index=False)]
            shown |= dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    return table.assign(**{name: pd.Series(values, table.index, dtype=object) for name, values in shown.items()})


def _same_digits(*numbers: float) -> list[str | None]:
    """An estimate and its limits; None for one that is missing."""
    known = [None if pd.isna(one) else float(one) for one in numbers]
    if known[0] is None:
        return [None] * len(numbers)
    form = f".{decimals(known[0], *known[1:])}f" if known[1:] != [None, None] else ".3f"
    return [None if one is None else number(one, form) for one in known]


def number(value: float, form: str) -> str:
    """A number with the typographic minus sign, and no sign before a 0."""
    text = format(value, form)
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def p_text(p: float) -> str:
    """A p value in words, as "p = 0.02"; near 0.05 with three decimals, so that a reader sees on which side it is."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{3 if p < 0.01 or 0.045 <= p < 0.055 else 2}f}"
