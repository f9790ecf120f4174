"""The unpatched answers of a run: as files, and as a part of the report.

write_answers(Path("results/RUN"))               # answers.csv, answers_summary.csv and the figure
charts(results), tables(results)                 # for the report
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from voicepatch.analysis.answers import answered_clips, what_answers_follow
from voicepatch.analysis.behaviour import unpatched_of
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import ENOUGH_MASS
from voicepatch.analysis.results import Results
from voicepatch.figures.answers import TITLE, chart
from voicepatch.figures.charts import Charts
from voicepatch.figures.figure_style import save
from voicepatch.figures.headings import model_and_data
from voicepatch.report.table import Table, table_of
from voicepatch.store.answers import STEM
from voicepatch.store.reading import read_config


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
    drawn = save(chart(table, model_and_data(config)), run / STEM)
    mass = clips["label_mass"].mean()
    warning = (
        f"the labels hold {mass:.1%} of the model's probability on average, so the answers among them mean little "
        "(docs/tasks.md)"
    )
    return table, [figure for figure in drawn if figure.suffix == ".png"], warning if mass < ENOUGH_MASS else ""


def charts(results: Results) -> Charts:
    """The figure of what the unpatched answers follow; none where nothing is known of them."""
    found = unpatched_of(results)
    return {} if found.table is None else {STEM: chart(found.table, found.of, model_and_data(results.config))}


def tables(results: Results) -> list[Table]:
    """The numbers behind the figure."""
    found = unpatched_of(results)
    return [] if found.table is None else [table_of(f"{TITLE}: {found.of}", found.table)]
