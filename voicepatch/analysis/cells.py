"""The cells of an experiment: a layer and, in a sweep, one value of each swept option.

swept = settings["swept"]                        # [], ["patch_alpha"], ["head"] or ["patch_alpha", "k"]
records.groupby(["layer", *swept])
combinations(records, swept)                     # "alpha 0.5, k 3" in each row
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from voicepatch.text import value_text

DOSE = "patch_alpha"


def is_one_curve(swept: Sequence[str]) -> bool:
    """Whether there is one row a layer at the highest dose."""
    return set(swept) <= {DOSE}


def at_highest_dose(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the largest `patch_alpha`."""
    return table[table[DOSE] == table[DOSE].max()]


def combinations(table: pd.DataFrame, swept: Sequence[str]) -> pd.Series:
    """The swept values of each row as text, "alpha 0.5, k 3"; "" without a sweep."""
    parts = [[value_name(column, value) for value in table[column].tolist()] for column in swept]
    texts = [", ".join(row) for row in zip(*parts, strict=True)] if parts else ""
    return pd.Series(texts, index=table.index, dtype=object)


def value_name(column: str, value: Any) -> str:
    """One swept value with its option, such as "alpha 0.5"."""
    return f"{option_name(column)} {value_text(value)}"


def with_all_digits(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table whose fractions in these columns, or in index levels of these names, are text with all digits."""
    levels = [name for name in table.index.names if name in columns]
    if levels:
        return with_all_digits(table.reset_index(), columns)
    floats = table.select_dtypes("float").columns.intersection(list(columns))
    return table.assign(**{column: table[column].map(value_text) for column in floats})


def option_name(column: str) -> str:
    """The option behind a column of the records."""
    return "alpha" if column == DOSE else column


def by_cell(records: pd.DataFrame, pairs: pd.DataFrame, column: str, cell: Sequence[str] = ("layer",)) -> pd.DataFrame:
    """The values of `column` as [pairs, cells]; NaN where there is no record."""
    table = records.pivot(index="pair_id", columns=list(cell) if len(cell) > 1 else cell[0], values=column)
    return table.reindex(pairs["pair_id"]).astype(float).sort_index(axis=1)


def first_from(holds: pd.Series) -> int | None:
    """The first layer, of the index, from which on something holds at all layers; None where it ends otherwise."""
    layers = [int(layer) for layer in holds.index]
    found = [layer for i, layer in enumerate(layers) if holds.iloc[i:].all()]
    return found[0] if found else None


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as 0-2,5, the way `--layers` takes it."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
