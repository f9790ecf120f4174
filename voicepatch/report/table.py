"""A data frame as cells of text.

table_of("By layer", metrics).rows
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from voicepatch.analysis.rounding import with_digits


@dataclass(frozen=True)
class Table:
    """Cells as text, ready to show; `numeric` says for each column whether it is aligned to the right."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def table_of(caption: str, table: pd.DataFrame) -> Table:
    """The frame with an empty cell as a dash, and a named index as its first columns.

    Numbers with limits have the digits that these allow (`analysis.rounding`), others three decimals.
    """
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    numeric = [bool(pd.api.types.is_numeric_dtype(kind)) for kind in table.dtypes]
    rows = [[_cell(value) for value in row] for row in with_digits(table).astype(object).itertuples(index=False)]
    return Table(caption, [str(column) for column in table.columns], rows, numeric)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(part) for part in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_cell(part)}" for key, part in value.items()) or "–"
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        return f"{value:.1g}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.3f}".replace("-", "−")
    return str(value)
