"""The unpatched answers of a run: as files, and as a part of the report.

write_answers(Path("results/RUN"))               # answers.csv, answers_summary.csv and the figure
charts(results), tables(results)                 # for the report
verdict(table)                                   # does the model do the task, in words
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis.answers import (
    ALL_TEXTS,
    BOTH,
    CONFLICT,
    CONGRUENT,
    NEITHER,
    answered_clips,
    what_answers_follow,
)
from voicepatch.analysis.behaviour import unpatched_of
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import little_mass
from voicepatch.analysis.need import VOICE, WORDS
from voicepatch.analysis.results import Results
from voicepatch.figures.answers import TITLE, chart
from voicepatch.figures.charts import Charts
from voicepatch.figures.figure_style import save
from voicepatch.figures.headings import names_of
from voicepatch.report.answer import interval_in, rate_in
from voicepatch.report.table import Table, table_of
from voicepatch.store.answers import STEM
from voicepatch.store.reading import read_config
from voicepatch.text import counted, escape

LABEL_OF = {VOICE: "the voice's label", WORDS: "the words' label", BOTH: "the label of both"}
WHICH = {CONFLICT: " whose words and voice differ", CONGRUENT: " whose words and voice agree", "": ""}


def write_answers(run: Path, clip_ids: Collection[str] | None = None) -> tuple[pd.DataFrame, list[Path], str]:
    """Write the tables and the figure of a run's stored answers, to some clips or to all.

    Gives the summary, the PNG file, and a warning where the labels hold little of the model's probability, or "".
    """
    config = read_config(run)
    clips, labels = answered_clips(run, config), config["task"]["labels"]
    clips = clips if clip_ids is None else clips[clips["clip_id"].isin(set(clip_ids))]
    table = what_answers_follow(clips, labels)
    write_table(run / f"{STEM}.csv", clips, ["label_mass", *(f"logit_{label}" for label in labels)])
    write_table(run / f"{STEM}_summary.csv", table)
    drawn = save(chart(table, names_of(config)), run / STEM)
    return table, [figure for figure in drawn if figure.suffix == ".png"], little_mass(clips["label_mass"])


def verdict(table: pd.DataFrame) -> str:
    """Whether the model does the task: which labels it gives above chance, with intervals, and in which texts."""
    rows = table[table["follows"] != NEITHER]
    above = rows["share_low"] > rows["chance"]
    of_all, chance = rows["text_type"] == ALL_TEXTS, f"{rows['chance'].iloc[0]:.0%}"
    shown, others = ("; ".join(map(_share, rows[of_all & which].to_dict("records"))) for which in (above, ~above))
    found = f"Above chance ({chance}), the unpatched model gives {shown}." if shown else ""
    found += "" if shown else "The model is not shown to do the task."
    found += f" Not above chance ({chance}): {others}." if others else ""
    types = [
        f"in {escape(of)} texts {' and '.join(LABEL_OF[one] for one in mine['follows'])}"
        for of, mine in rows[~of_all & above].groupby("text_type")
    ]
    by_type = f" By type of text, these labels are above chance: {'; '.join(types)}." if types else ""
    return f"{found}{by_type}".strip()


def _share(row: dict[str, Any]) -> str:
    """One row of the table in words, as "the voice's label in 51% of 120 clips in which … (95 % interval …)"."""
    interval = interval_in(pd.Series(row), "share")
    text = f"{LABEL_OF[row['follows']]} in {rate_in(pd.Series(row), 'share')} of {counted(row['n_clips'], 'clip')}"
    return f"{text}{WHICH[row['congruence']]}" + (f" ({interval})" if interval else " (no interval)")


def verdict_of(results: Results) -> str:
    """The verdict of a run's unpatched answers; "" where nothing is known of them."""
    found = unpatched_of(results)
    return "" if found.table is None else verdict(found.table)


def charts(results: Results) -> Charts:
    """The figure of what the unpatched answers follow; none where nothing is known of them."""
    found = unpatched_of(results)
    return {} if found.table is None else {STEM: chart(found.table, found.of, names_of(results.config))}


def tables(results: Results) -> list[Table]:
    """The numbers behind the figure."""
    found = unpatched_of(results)
    return [] if found.table is None else [table_of(f"{TITLE}: {found.of}", found.table)]
