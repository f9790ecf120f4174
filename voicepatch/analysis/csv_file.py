"""Tables as CSV files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis.cells import with_all_digits
from voicepatch.files import write_whole
from voicepatch.text import for_xml


def write_table(path: Path, table: pd.DataFrame, exact: Sequence[str] = ()) -> None:
    """Write a CSV file with six digits, those of the columns `exact` all, as a whole or not at all.

    A spreadsheet takes a text that begins with =, +, - or @ for a formula; an apostrophe stands before it.
    """
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = with_all_digits(table.assign(**{column: table[column].map(_cell) for column in texts}), exact)
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{for_xml(value)}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else for_xml(value)
