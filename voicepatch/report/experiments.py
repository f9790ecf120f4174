"""A run as its report shows it: every experiment with its records, figures, tables and results.

run = read_run(Results(Path("results/RUN")))
run.experiments[0].name, run.experiments[0].figures
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from voicepatch.analysis.cells import DOSE, combinations, is_one_curve, with_all_digits
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import KINDS, Results, left_out
from voicepatch.analysis.sites import ELSEWHERE, NOTHING, site_name, sites_of
from voicepatch.analysis.tables import all_tables
from voicepatch.analysis.words_and_voice import contrast_of
from voicepatch.figures.charts import charts_of
from voicepatch.figures.headings import description, no_interval
from voicepatch.figures.own import own_figures
from voicepatch.report.figures import Album, Figure
from voicepatch.report.table import Table, table_of
from voicepatch.types.check import Check
from voicepatch.types.task import Task

MOST_ROWS = 400  # of a table
VARIES = {"prosody": "same words, another voice", "semantic": "same voice, other words"}


@dataclass(frozen=True)
class Own:
    """What the experiment's own module gives; `missing` is the reason where the module was not found."""

    sentences: list[str] = field(default_factory=list)
    simplifications: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    pair_map: Callable[[list[str]], dict[str, Any]] = lambda combinations: {}
    missing: str = ""


@dataclass(frozen=True)
class Experiment:
    """One experiment of the run; `records` is None where it has no complete pair.

    `metrics` has one row a cell, at the highest dose where there are several; `swept` are the columns besides `layer`
    that distinguish the rows of a pair. `failed` are the pairs that failed, as pair_id → reason. `no_interval` is the
    reason why there are no intervals, where there are none. `as_written` is the reason why it ran as it is written,
    where it did. `reads_donor`, whether it reads B's run, is None where the run does not record that.
    """

    name: str
    settings: dict[str, Any]
    pairs: pd.DataFrame
    failed: dict[str, str]
    records: pd.DataFrame | None = None
    metrics: pd.DataFrame | None = None
    swept: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hand_over: dict[str, Any] | None = None
    no_interval: list[str] = field(default_factory=list)
    own: Own = Own()
    as_written: str | None = None
    reads_donor: bool | None = None

    @property
    def notes(self) -> list[str]:
        """The lines that all of its figures share: the number of pairs, the model and the data."""
        first, *others = [figure.subtitle for figure in self.figures[:2]] or [[]]
        return [line for line in first if all(line in subtitle for subtitle in others)]

    @property
    def finished(self) -> bool:
        return self.settings["finished"]

    @property
    def is_main(self) -> bool:
        return self.settings["main"]

    @property
    def kind(self) -> str:
        return self.settings["kind"]

    @property
    def what(self) -> str:
        """What it does, in one sentence."""
        return description(self.settings)

    @property
    def pairs_differ(self) -> str:
        """What the two clips of a pair have in common, and what not."""
        return VARIES[self.kind]

    @property
    def site(self) -> str:
        """What was written in the block, in words; "" without records."""
        return "" if self.records is None else site_name(self.records)

    @property
    def writes(self) -> bool:
        """Whether it changes A's run; true without records."""
        return self.records is None or sites_of(self.records) != [NOTHING]

    @property
    def is_donor_patch(self) -> bool:
        """Whether it reads B's run and visibly writes into A's."""
        reads = self.is_main if self.reads_donor is None else self.reads_donor
        return reads and (self.records is None or not {NOTHING, ELSEWHERE} >= set(sites_of(self.records)))

    @property
    def engine(self) -> str:
        """How its traces ran: by which engine, or each as it is written."""
        return "as written, one trace a layer" if self.as_written else f"engine {self.settings['engine']}"

    @property
    def is_one_curve(self) -> bool:
        return is_one_curve(self.swept)

    @property
    def doses(self) -> list[float]:
        """Every alpha that ran."""
        if self.records is not None:
            return sorted(self.records[DOSE].unique().tolist())
        alpha = self.settings["patch_alpha"]
        return alpha if isinstance(alpha, list) else [alpha]

    def cell(self, row: pd.Series) -> str:
        """The cell of a row of its metrics, as "layer 3, head 2"."""
        values = combinations(row.to_frame().T.infer_objects(), [c for c in self.swept if c != DOSE]).iloc[0]
        return ", ".join(filter(None, [f"layer {int(row['layer'])}", values]))

    @property
    def n_measured(self) -> int:
        return 0 if self.records is None else self.records["pair_id"].nunique()


@dataclass(frozen=True)
class Run:
    """The files of a run directory; main experiments first, controls last.

    `documents` are the files of `analysis.results.REPORTS`. `invalid` are the experiments whose files are invalid, each
    with the reason; `left_out` are lines on the controls that ran with other settings than their main experiment.
    """

    config: dict[str, Any]
    task: Task
    documents: dict[str, dict[str, Any]]
    experiments: list[Experiment]
    invalid: dict[str, str]
    left_out: list[str]
    datasets: dict[str, dict[str, Any]]

    @property
    def labels(self) -> list[str]:
        """The labels of the run's task, in order."""
        return list(self.task.labels)

    @property
    def mains(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if experiment.is_main]

    @property
    def others(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if not experiment.is_main]


def read_run(results: Results) -> Run:
    """What a report shows of a run; `UserError` where no experiment is valid."""
    invalid = results.invalid
    if len(invalid) == len(results.names):
        raise next(iter(invalid.values()))
    by_rank = sorted(results.valid, key=lambda one: (not one.is_main, one.settings["control"]))
    album = Album()
    return Run(
        config=results.config,
        task=results.task,
        documents=results.documents,
        experiments=[_experiment(results, one, album) for one in by_rank],
        invalid={name: str(error) for name, error in invalid.items()},
        left_out=left_out(results),
        datasets=album.datasets,
    )


def _experiment(results: Results, measured: ExperimentResults, album: Album) -> Experiment:
    checked = results.documents["engines"].get(measured.name, {})
    known: dict[str, Any] = {key: checked.get(key) for key in ("as_written", "reads_donor")}
    known |= {key: getattr(measured, key) for key in ("name", "settings", "pairs", "failed")}
    if measured.records is None:
        return Experiment(**known)
    own, of_it = own_figures(results, measured), (results, measured)
    return Experiment(
        **known,
        records=measured.records,
        metrics=measured.curve,
        swept=measured.swept,
        figures=album.take(charts_of(results, measured.name)),
        tables=_tables(results, measured),
        hand_over=results.hand_over(measured.kind) if measured is results.main(measured.kind) else None,
        no_interval=no_interval(measured),
        own=Own(
            own.sentences(*of_it),
            own.simplifications(*of_it),
            own.limits(),
            own.checks(*of_it),
            partial(own.pair_map, measured),
            own.missing,
        ),
    )


def _tables(results: Results, measured: ExperimentResults) -> list[Table]:
    swept = measured.swept
    own = own_figures(results, measured).tables(results, measured)
    tables = [_first_rows(table.attrs.get("caption", stem), table, f"{stem}.csv") for stem, table in own.items()]
    if measured.settings["reads_only"]:
        return tables
    metrics = measured.metrics[["layer", *swept, *measured.metrics.columns.drop(["layer", *swept])]]
    caption = f"All metrics by {' and '.join(['layer', *swept])}"
    metrics = with_all_digits(metrics, swept).dropna(axis="columns", how="all")
    tables.insert(0, _first_rows(caption, metrics, f"patching_metrics_{measured.name}.csv"))
    found = all_tables(measured.records, measured.pairs, swept)
    tables += [table_of(caption, with_all_digits(table, swept)) for caption, table in found.items()]
    if measured is results.main(measured.kind):
        alike, _ = results.controls(measured.kind)
        for control in sorted(alike, key=lambda one: one.name):
            tables.append(table_of(f"Difference from {control.name}, by layer", results.contrast(control)))
        contrast = results.cached(contrast_of)
        if isinstance(contrast, Contrast) and measured.kind == KINDS[0]:
            tables.append(table_of(f"Difference from {KINDS[1]}, by layer", contrast.table))
    return tables


def _first_rows(caption: str, table: pd.DataFrame, file: str) -> Table:
    if len(table) > MOST_ROWS:
        caption += f": the first {MOST_ROWS} of {len(table)} rows of {file}"
    return table_of(caption, table[:MOST_ROWS])
