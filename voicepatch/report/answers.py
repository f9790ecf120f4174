"""The unpatched answers of a run: as files, and as a part of the report.

write_answers(Path("results/RUN"))               # answers.csv, answers_summary.csv and the figure
charts(results), tables(results)                 # for the report
verdict(table)                                   # does the model do the task, in words
"""

from collections.abc import Collection
from pathlib import Path

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
from voicepatch.text import counted, escape, list_of

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
    """Whether the model does the task: which labels it gives above chance, then their shares, and in which texts."""
    rows = table[table["follows"] != NEITHER]
    above = rows["share_low"] > rows["chance"]
    of_all, chance = rows["text_type"] == ALL_TEXTS, f"{rows['chance'].iloc[0]:.0%}"
    shown, others = (_labels(rows[of_all & which]) for which in (above, ~above))
    found = (
        f"The unpatched model gives {shown} more often than by chance ({chance})."
        if shown
        else f"The model is not shown to do the task above chance ({chance})."
    )
    found += f" This is not shown for {others}." if shown and others else ""
    of_type = rows[~of_all & above].groupby("text_type")
    types = [f"in {escape(name)} texts {_labels(mine)}" for name, mine in of_type]
    by_type = [f"By type of text, these labels are above chance: {'; '.join(types)}."] if types else []
    shares = [_shares(mine) for _, mine in rows[of_all].groupby(["congruence", "n_clips"], sort=False)]
    return " ".join([found, *shares, *by_type])


def _labels(rows: pd.DataFrame) -> str:
    """The labels that rows are about, in words; "" for none."""
    return list_of(LABEL_OF[one] for one in rows["follows"])


def _shares(rows: pd.DataFrame) -> str:
    """How often the same clips get each label, as in `Of 120 clips whose …: the voice's label in 51% (…).`"""
    shares = []
    for row in rows.to_dict("records"):
        share, interval = rate_in(pd.Series(row), "share"), interval_in(pd.Series(row), "share")
        shares.append(f"{LABEL_OF[row['follows']]} in {share} ({interval or 'no interval'})")
    of = rows.iloc[0]
    return f"Of {counted(int(of['n_clips']), 'clip')}{WHICH[of['congruence']]}: {', '.join(shares)}."


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
