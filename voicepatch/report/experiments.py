"""A run as its report shows it: every experiment with its figures, tables and results.

run = read_run(Results(Path("results/RUN")))
run.experiments[0].name, run.figures["prosody"]
"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from voicepatch.analysis.acoustics import CAPTION, acoustic_table
from voicepatch.analysis.breakdown import breakdown_columns, pair_values
from voicepatch.analysis.cells import with_all_digits
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.samples import speakers_note
from voicepatch.analysis.sites import ELSEWHERE, NOTHING, sites_of
from voicepatch.analysis.tables import all_tables
from voicepatch.analysis.words_and_voice import contrast_of
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.charts import charts_of
from voicepatch.figures.own import own
from voicepatch.report import answers, natural
from voicepatch.report.figures import Album, Figure
from voicepatch.report.table import Table, table_of

MOST_ROWS = 400  # of a table
VARIES = {"prosody": "same words, another voice", "semantic": "same voice, other words"}


@dataclass(frozen=True)
class Run:
    """A run with the figures and tables of each experiment by its name; main experiments first, controls last.

    `answer` are the figures that stand beside the headline, `unpatched` those of the unpatched answers,
    `natural` those of `check --natural`.
    """

    results: Results
    experiments: list[ExperimentResults]
    figures: dict[str, list[Figure]]
    tables: dict[str, list[Table]]
    answer: list[Figure]
    unpatched: list[Figure]
    natural: list[Figure]
    datasets: dict[str, dict[str, Any]]

    @property
    def config(self) -> dict[str, Any]:
        return self.results.config

    @property
    def labels(self) -> list[str]:
        """The labels of the run's task, in order."""
        return list(self.results.task.labels)

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        """The files of `analysis.results.REPORTS`."""
        return self.results.documents

    @property
    def mains(self) -> list[ExperimentResults]:
        return [experiment for experiment in self.experiments if experiment.is_main]

    @property
    def others(self) -> list[ExperimentResults]:
        return [experiment for experiment in self.experiments if not experiment.is_main]

    def own(self, experiment: ExperimentResults, name: str, *args: Any) -> Any:
        """What a function of the experiment's own module gives; without `args`, of the results and the experiment."""
        return own(self.results, experiment, name, *(args or (self.results, experiment)))

    def limits(self) -> list[str]:
        """What the modules of the experiments declare that these do not show."""
        return list(dict.fromkeys(line for one in self.experiments for line in own(self.results, one, "limits")))

    def hand_over(self, experiment: ExperimentResults) -> dict[str, Any]:
        """Its hand-over layer, where it is the finished main experiment of its kind; otherwise empty."""
        kind = experiment.kind
        return (self.results.hand_over(kind) or {}) if experiment is self.results.main(kind) else {}

    def notes(self, experiment: ExperimentResults) -> list[str]:
        """The lines that all of its figures share: the number of pairs, the model and the data."""
        first, *others = [figure.notes for figure in self.figures[experiment.name][:2]] or [[]]
        return [line for line in first if all(line in notes for notes in others)]

    def as_written(self, experiment: ExperimentResults) -> str | None:
        """The reason why an experiment ran as it is written, where it did."""
        return self.documents["engines"].get(experiment.name, {}).get("as_written")

    def is_donor_patch(self, experiment: ExperimentResults) -> bool:
        """Whether it reads B's run and visibly writes into A's."""
        reads = self.documents["engines"].get(experiment.name, {}).get("reads_donor", experiment.is_main)
        return reads and (experiment.records is None or not {NOTHING, ELSEWHERE} >= set(sites_of(experiment.records)))


def read_run(results: Results) -> Run:
    """What a report shows of a run; `UserError` where no experiment is valid."""
    invalid = results.invalid
    if len(invalid) == len(results.names):
        raise next(iter(invalid.values()))
    by_rank = sorted(results.valid, key=lambda one: (not one.is_main, one.settings["control"]))
    album, figures, tables = Album(), {}, {}
    for one in by_rank:
        figures[one.name] = [] if one.records is None else album.take(charts_of(results, one.name))
        tables[one.name] = [] if one.records is None else _tables(results, one)
    answer = [figure for one in by_rank if one.settings["beside_main"] for figure in figures[one.name]]
    figures |= {one.name: [] for one in by_rank if one.settings["beside_main"]}
    unpatched, of_natural = album.take(answers.charts(results)), album.take(natural.charts(results))
    return Run(results, by_rank, figures, tables, answer, unpatched, of_natural, album.datasets)


def _tables(results: Results, measured: ExperimentResults) -> list[Table]:
    tables, note = [*_marked_cells(results, measured), *_other_tables(results, measured)], speakers_note(measured.pairs)
    return [
        replace(table, caption=f"{table.caption}; {note}") if note and _has_limits(table) else table for table in tables
    ]


def _has_limits(table: Table) -> bool:
    return any(column.endswith(("low", "_low")) for column in table.columns)


def _marked_cells(results: Results, measured: ExperimentResults) -> list[Table]:
    tested = results.cached(cell_map, measured.name)
    if tested is None:
        return []
    marked = with_all_digits(tested.marked.drop(columns=["marked", "reason"]), measured.swept)
    return [_first_rows(f"Marked cells, strongest first; {tested.note}", marked, f"map_cells_{measured.name}.csv")]


def _other_tables(results: Results, measured: ExperimentResults) -> list[Table]:
    swept = measured.swept
    found = own(results, measured, "tables", results, measured)
    tables = [_first_rows(table.attrs.get("caption", stem), table, f"{stem}.csv") for stem, table in found.items()]
    if measured.settings["reads_only"]:
        return tables
    metrics = measured.metrics[["layer", *swept, *measured.metrics.columns.drop(["layer", *swept])]]
    metrics = metrics[measured.meaningful(metrics)]
    cell = [*(["layer"] if measured.settings["by_layer"] else []), *swept]
    caption = " by ".join(filter(None, ["All metrics", " and ".join(cell)])) + (
        ", of estimates" if measured.is_estimate else ""
    )
    metrics = with_all_digits(metrics, swept).dropna(axis="columns", how="all")
    tables.insert(0, _first_rows(caption, metrics, f"patching_metrics_{measured.name}.csv"))
    by = {column: pair_values(measured.pairs, column, results.task) for column in breakdown_columns(results, measured)}
    common = all_tables(measured.records, measured.pairs, swept, by)
    tables += [table_of(caption, with_all_digits(table, swept)) for caption, table in common.items()]
    if measured is results.main(measured.kind):
        comparable, _ = results.controls(measured.kind)
        for control in sorted(comparable, key=lambda one: one.name):
            tables.append(_of_contrast(control.name, results.contrast(control)))
        if isinstance(acoustic := results.cached(acoustic_table), pd.DataFrame):
            tables.append(table_of(CAPTION, acoustic))
        contrast = results.cached(contrast_of)
        if isinstance(contrast, Contrast) and measured.kind == KINDS[0]:
            tables.append(_of_contrast(KINDS[1], contrast.table))
    return tables


def _of_contrast(other: str, table: pd.DataFrame) -> Table:
    untested = "reason" in table and table["reason"].any()
    shown = table if untested else table.drop(columns="reason", errors="ignore")
    return table_of(f"Difference from {other}, by layer", shown)


def _first_rows(caption: str, table: pd.DataFrame, file: str) -> Table:
    if len(table) > MOST_ROWS:
        caption += f": the first {MOST_ROWS} of {len(table)} rows of {file}"
    return table_of(caption, table[:MOST_ROWS])
