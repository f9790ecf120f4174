"""A run as its report shows it: every experiment with its records, figures, tables and what was concluded.

run = read_run(Results(Path("results/RUN")))
run.experiments[0].name, run.experiments[0].figures
"""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.cells import DOSE, combinations, is_one_curve, with_all_digits
from analysis.charts import charts_of, description, no_interval
from analysis.contrast_kinds import Contrast
from analysis.lens import is_lens, leads_of
from analysis.metrics import near_tie_margin, near_ties
from analysis.report.figures import Album, Figure
from analysis.report.table import Table, table_of
from analysis.results import KINDS, Measured, Results, left_out
from analysis.sites import ELSEWHERE, NOTHING, site_name, sites_of
from analysis.tables import all_tables
from analysis.words_and_voice import contrast_of

MOST_CELLS = 400  # lines of the table of all metrics
VARIES = {"prosody": "same words, another voice", "semantic": "same voice, other words"}


@dataclass(frozen=True)
class NearTies:
    """Patched answers whose best two labels are within noise of each other, and recipients whose own are."""

    tied: int
    answers: int
    tied_clips: frozenset[str]
    clips: frozenset[str]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the run; `records` is None while nothing of it can be shown.

    `metrics` is the table by cell, at the highest dose where there are several; `swept` are the columns besides `layer`
    that tell the rows of a pair apart. `lost` are pairs that are listed as failed, as pair_id → reason, in the order of
    the list; `no_interval` says why there are no intervals, where there are none. `as_written` says why it ran as it is
    written, where it did; `reads_donor`, whether it reads B's run, is None where the run does not hold that.
    """

    name: str
    settings: dict[str, Any]
    pairs: pd.DataFrame
    lost: dict[str, str]
    records: pd.DataFrame | None = None
    metrics: pd.DataFrame | None = None
    swept: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hand_over: dict[str, Any] | None = None
    near_ties: NearTies | None = None
    no_interval: list[str] = field(default_factory=list)
    as_written: str | None = None
    reads_donor: bool | None = None

    @property
    def notes(self) -> list[str]:
        """What holds of all its figures: how many pairs, which model and data."""
        first, *others = [figure.subtitle for figure in self.figures[:2]] or [[]]
        return [line for line in first if all(line in subtitle for subtitle in others)]

    @property
    def finished(self) -> bool:
        return self.settings["finished"]

    @property
    def is_main(self) -> bool:
        return self.settings["intervention"] == "patch"

    @property
    def what(self) -> str:
        """Its docstring, or its name where the run keeps none."""
        return description(self.settings)

    @property
    def pairs_differ(self) -> str:
        """What the two clips of a pair have in common, and what not."""
        return VARIES[self.settings["kind"]]

    @property
    def site(self) -> str:
        """What was written in the block, in words; "" while nothing is known."""
        return "" if self.records is None else site_name(self.records)

    @property
    def writes(self) -> bool:
        """Whether it changes A's run; true while nothing is known."""
        return self.records is None or sites_of(self.records) != [NOTHING]

    @property
    def is_donor_patch(self) -> bool:
        """Whether it reads B's run and is seen to write into A's."""
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
        """The cell of a line of its metrics, as "layer 3, head 2"."""
        values = combinations(row.to_frame().T.infer_objects(), [c for c in self.swept if c != DOSE]).iloc[0]
        return ", ".join(filter(None, [f"layer {int(row['layer'])}", values]))

    @property
    def n_measured(self) -> int:
        return 0 if self.records is None else self.records["pair_id"].nunique()


@dataclass(frozen=True)
class Run:
    """The files of a run directory; experiments with the main ones first, controls after them.

    `refused` says of each experiment whose files do not hold together why; `left_out` what was not joined with a main
    experiment since it ran in another way.
    """

    config: dict[str, Any]
    tokens: dict[str, Any]
    spans: dict[str, Any]
    silent: dict[str, Any]
    engines: dict[str, dict[str, Any]]
    sounds: dict[str, dict[str, Any]]
    construction: dict[str, Any]
    experiments: list[Experiment]
    refused: dict[str, str]
    left_out: list[str]
    datasets: dict[str, dict[str, Any]]

    @property
    def mains(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if experiment.is_main]

    @property
    def others(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if not experiment.is_main]


def read_run(results: Results) -> Run:
    """What a report shows of a run; `UserError` where no experiment holds together."""
    refused = results.refused
    if len(refused) == len(results.names):
        raise next(iter(refused.values()))
    by_rank = sorted(results.believed, key=lambda one: _rank(one.settings))  # stable: in the order begun
    album = Album()
    return Run(
        config=results.config,
        **results.documents,
        experiments=[_experiment(results, one, album) for one in by_rank],
        refused={name: str(error) for name, error in refused.items()},
        left_out=left_out(results),
        datasets=album.datasets,
    )


def _rank(settings: dict[str, Any]) -> int:
    return 0 if settings["intervention"] == "patch" else 1 if not settings["control"] else 2


def _experiment(results: Results, measured: Measured, album: Album) -> Experiment:
    name, records = measured.name, measured.records
    checked = results.documents["engines"].get(name, {})
    how = {key: checked.get(key) for key in ("as_written", "reads_donor")}
    if records is None:
        return Experiment(name, measured.settings, measured.pairs, measured.lost, **how)
    return Experiment(
        name,
        measured.settings,
        measured.pairs,
        measured.lost,
        records,
        measured.curve,
        measured.swept,
        figures=album.take(charts_of(results, name), name),
        tables=_tables(results, measured),
        hand_over=results.hand_over(measured.kind) if measured is results.main(measured.kind) else None,
        near_ties=_near_ties(records, near_tie_margin(measured.settings)),
        no_interval=no_interval(measured),
        **how,
    )


def _near_ties(records: pd.DataFrame, margin: float) -> NearTies:
    clips = records.drop_duplicates("clip_a")
    tied = clips["clip_a"][near_ties(clips["logits_base"], margin)]
    return NearTies(
        int(near_ties(records["logits_patch"], margin).sum()), len(records), frozenset(tied), frozenset(clips["clip_a"])
    )


def _all_metrics(metrics: pd.DataFrame, name: str, swept: list[str]) -> Table:
    caption = f"All metrics by {' and '.join(['layer', *swept])}"
    if len(metrics) > MOST_CELLS:
        caption += f": the first {MOST_CELLS} of {len(metrics)} lines of patching_metrics_{name}.csv"
    columns = ["layer", *swept, *metrics.columns.drop(["layer", *swept])]
    shown = with_all_digits(metrics[columns][:MOST_CELLS], swept)
    return table_of(caption, shown.dropna(axis="columns", how="all"))


def _tables(results: Results, measured: Measured) -> list[Table]:
    if is_lens(measured.settings):
        return [table_of("Which label leads the lens, by layer", results.once(leads_of, measured.name))]
    found = all_tables(measured.records, measured.pairs, measured.swept)
    tables = [_all_metrics(measured.metrics, measured.name, measured.swept)]
    tables += [table_of(caption, with_all_digits(table, measured.swept)) for caption, table in found.items()]
    if measured is results.main(measured.kind):
        alike, _ = results.controls(measured.kind)
        for control in sorted(alike, key=lambda one: one.name):
            tables.append(table_of(f"Difference from {control.name}, by layer", results.contrast(control)))
        found = results.once(contrast_of)
        if isinstance(found, Contrast) and measured.kind == KINDS[0]:
            tables.append(table_of(f"Difference from {KINDS[1]}, by layer", found.table))
    return tables
