"""The table and the figure of `check --natural`: as files, and as a part of the report.

write_natural(Path("results/RUN"), config, table)     # natural.csv, natural.png, natural.svg
charts(results)                                       # for the report
"""

from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures.charts import Charts
from voicepatch.figures.figure_style import save
from voicepatch.figures.headings import model_and_data
from voicepatch.figures.natural import chart
from voicepatch.store.reading import read_frame

STEM = "natural"
FILE = f"{STEM}.csv"


def write_natural(run: Path, config: dict[str, Any], table: pd.DataFrame) -> list[Path]:
    """Write the table and the figure; gives the figure's files."""
    write_table(run / FILE, table)
    return save(chart(table, model_and_data(config)), run / STEM)


def charts(results: Results) -> Charts:
    """The figure; none where the check did not run, or its table is not there."""
    file = results.run / FILE
    if not results.documents[STEM] or not file.exists():
        return {}
    try:
        return {STEM: chart(read_frame(file), model_and_data(results.config))}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{file}: is not the table of `check --natural`; run that check again") from None
