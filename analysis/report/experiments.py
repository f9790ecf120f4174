"""A run as its report shows it: every experiment with its records, figures, tables and what was concluded.

run = read_run(Path("results/RUN"))
run.experiments[0].name, run.experiments[0].figures
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import DOSE, at_highest_dose, combinations, is_one_curve, swept_columns
from analysis.charts import charts_of, description, read_metrics
from analysis.lens import is_lens, read_leads
from analysis.metrics import layer_metrics, near_tie_margin, near_ties, read_records
from analysis.report.figures import Album, Figure
from analysis.report.table import Table, table_of
from analysis.sites import site_name
from analysis.tables import all_tables
from errors import UserError
from files import read_config, read_json, whole_lines

Rows = list[dict[str, Any]]
MOST_CELLS = 400  # lines of the table of all metrics
KINDS = {"prosody": "same words, another voice", "semantic": "same voice, other words"}


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
    that tell the rows of a pair apart. `lost` are pairs that gave no record
    and never will, as pair_id → reason, in the order of the list.
    """

    name: str
    settings: dict[str, Any]
    pairs: Rows
    lost: dict[str, str]
    records: pd.DataFrame | None = None
    metrics: pd.DataFrame | None = None
    swept: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hand_over: dict[str, Any] | None = None
    near_ties: NearTies | None = None

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
        return KINDS[self.settings["kind"]]

    @property
    def site(self) -> str:
        """What was written in the block, in words; "" while nothing is known."""
        return "" if self.records is None else site_name(self.records)

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
    """The files of a run directory; experiments with the main ones first, controls after them."""

    config: dict[str, Any]
    tokens: dict[str, Any]
    spans: dict[str, Any]
    silent: dict[str, Any]
    engines: dict[str, dict[str, Any]]
    sounds: dict[str, dict[str, Any]]
    construction: dict[str, Any]
    experiments: list[Experiment]
    datasets: dict[str, dict[str, Any]]

    @property
    def mains(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if experiment.is_main]

    @property
    def others(self) -> list[Experiment]:
        return [experiment for experiment in self.experiments if not experiment.is_main]


def read_run(run: Path) -> Run:
    """Read a run directory; `UserError` where it holds no run."""
    config = read_config(run)
    if not config.get("experiments"):
        raise UserError(f"{run}: holds no experiment; name a run directory that `patch` or `control` made")
    by_rank = sorted(config["experiments"].items(), key=lambda item: _rank(item[1]))  # stable: in the order begun
    album = Album()
    return Run(
        config=config,
        tokens=read_json(run / "tokenization_report.json"),
        spans=read_json(run / "sanity_check_audio_span.json"),
        silent=read_json(run / "sanity_check_self_patch.json"),
        engines=read_json(run / "sanity_check_engine.json"),
        sounds=read_json(run / "sanity_check_sounds.json"),
        construction=read_json(run / "pair_construction_report.json"),
        experiments=[_experiment(run, config, name, settings, album) for name, settings in by_rank],
        datasets=album.datasets,
    )


def _rank(settings: dict[str, Any]) -> int:
    return 0 if settings["intervention"] == "patch" else 1 if not settings["control"] else 2


def _experiment(run: Path, config: dict[str, Any], name: str, settings: dict[str, Any], album: Album) -> Experiment:
    pairs = _json_lines(run / f"pair_list_{name}.jsonl")
    records = _records(run / f"patching_records_{name}.jsonl")
    lost = _lost(pairs, records, _json_lines(run / f"failed_pairs_{name}.jsonl"), settings["finished"])
    if records is None:
        return Experiment(name, settings, pairs, lost)
    summarised = (run / f"patching_metrics_{name}.csv").exists()  # not yet, where it was interrupted
    margin = near_tie_margin(settings)
    swept = swept_columns(settings, records)
    metrics = read_metrics(run, name) if summarised else layer_metrics(records, margin, swept)
    return Experiment(
        name,
        settings,
        pairs,
        lost,
        records,
        at_highest_dose(metrics),
        swept,
        figures=album.take(charts_of(run, config, name), name) if summarised else [],
        tables=[table_of("Which label leads the lens, by layer", read_leads(run, name))]
        if is_lens(settings) and summarised
        else [_all_metrics(metrics, name, swept), *_tables(run, name, records, pairs, swept)],
        hand_over=read_json(run / f"statistics_{name}.json").get("hand_over"),
        near_ties=_near_ties(records, margin),
    )


def _lost(pairs: Rows, records: pd.DataFrame | None, failed: Rows, finished: bool) -> dict[str, str]:
    """Of a finished experiment every pair without a record; before that, those of which it is known."""
    reasons = {row["pair_id"]: row["reason"] for row in failed}
    measured = set() if records is None else set(records["pair_id"])
    without = [row["pair_id"] for row in pairs if row["pair_id"] not in measured]
    return {pair: reasons.get(pair, "no reason is noted") for pair in without if finished or pair in reasons}


def _near_ties(records: pd.DataFrame, margin: float) -> NearTies:
    clips = records.drop_duplicates("clip_a")
    tied = clips["clip_a"][near_ties(clips["logits_base"], margin)]
    return NearTies(
        int(near_ties(records["logits_patch"], margin).sum()), len(records), frozenset(tied), frozenset(clips["clip_a"])
    )


def _records(path: Path) -> pd.DataFrame | None:
    """None before the first record, and while the last line is torn because the experiment was interrupted in it."""
    if not path.exists() or not path.read_bytes().endswith(b"\n"):
        return None
    return read_records(path)


def _all_metrics(metrics: pd.DataFrame, name: str, swept: list[str]) -> Table:
    caption = f"All metrics by {' and '.join(['layer', *swept])}"
    if len(metrics) > MOST_CELLS:
        caption += f": the first {MOST_CELLS} of {len(metrics)} lines of patching_metrics_{name}.csv"
    columns = ["layer", *swept, *metrics.columns.drop(["layer", *swept])]
    return table_of(caption, metrics[columns][:MOST_CELLS].dropna(axis="columns", how="all"))


def _tables(run: Path, name: str, records: pd.DataFrame, pairs: Rows, swept: list[str]) -> list[Table]:
    tables = [table_of(caption, table) for caption, table in all_tables(records, pd.DataFrame(pairs), swept).items()]
    for path in sorted(run.glob(f"contrast_{name}_vs_*.csv")):
        other = path.stem.removeprefix(f"contrast_{name}_vs_")
        tables.append(table_of(f"Difference from {other}, by layer", pd.read_csv(path)))
    return tables


def _json_lines(path: Path) -> Rows:
    return [json.loads(line) for line in whole_lines(path)] if path.exists() else []
