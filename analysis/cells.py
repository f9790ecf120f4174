"""The cells of an experiment: a layer and, in a sweep, one value of each swept option.

swept = swept_columns(settings, records)         # [], ["patch_alpha"], ["head"] or ["patch_alpha", "k"]
records.groupby(["layer", *swept])
combinations(records, swept)                     # "alpha 0.5, k 3" in each row
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from runs.columns import value_text

DOSE = "patch_alpha"


def swept_columns(settings: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """The columns besides `layer` that tell the rows of a pair apart, as the experiment's settings name them.

    Settings of the version before name none; there only the dose could have several values. `table` is of records or
    of metrics.
    """
    if "swept" in settings:
        return list(settings["swept"])
    return [DOSE] if table[DOSE].nunique() > 1 else []


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
    """A table with the fractions in these columns, and in levels of its index with these names, as `value_text`."""
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
