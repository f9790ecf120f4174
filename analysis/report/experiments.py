"""A run as its report shows it: every experiment with its records, figures, tables and what was concluded.

run = read_run(Path("results/RUN"))
run.experiments[0].name, run.experiments[0].figures
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.charts import charts_of, read_metrics
from analysis.metrics import layer_metrics, near_tie_margin, near_ties, read_records
from analysis.report.figures import Album, Figure
from analysis.report.table import Table, table_of
from analysis.tables import all_tables
from errors import UserError
from files import read_config, read_json, whole_lines

Rows = list[dict[str, Any]]
ABOUT = {
    "self": "A is its own donor: nothing may change",
    "random": "a random clip donates, with another text and another prosody",
    "non-audio": "as many positions of the prompt's text are patched instead of the audio",
    "no-conflict": "only recipients whose words and voice agree",
    "same-label": "another clip with A's labels donates",
    "suffix": "the positions after the audio span are patched, up to the readout",
    "noise": "noise with the norm of A's own stream replaces the span",
    "dose": "the main patching at several doses",
    "window": "the span is patched at several consecutive layers",
    "mean": "the span is replaced by the mean over clips of the target label",
}
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

    `metrics` is the table by layer, at the largest dose where there are several. `lost` are pairs that gave no record
    and never will, as pair_id → reason, in the order of the list.
    """

    name: str
    settings: dict[str, Any]
    pairs: Rows
    lost: dict[str, str]
    records: pd.DataFrame | None = None
    metrics: pd.DataFrame | None = None
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hand_over: dict[str, Any] | None = None
    near_ties: NearTies | None = None

    @property
    def notes(self) -> list[str]:
        """What holds of all its figures: how many pairs, which model and data."""
        return self.figures[0].subtitle if self.figures else []

    @property
    def finished(self) -> bool:
        return self.settings["finished"]

    @property
    def is_main(self) -> bool:
        return self.settings["intervention"] == "patch"

    @property
    def what(self) -> str:
        intervention = self.settings["intervention"]
        if self.is_main:
            return KINDS[self.settings["kind"]]
        return ABOUT.get(intervention, f"intervention “{intervention}”")

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
    metrics = read_metrics(run, name) if summarised else layer_metrics(records, margin)
    return Experiment(
        name,
        settings,
        pairs,
        lost,
        records,
        metrics[metrics["patch_alpha"] == metrics["patch_alpha"].max()],
        figures=album.take(charts_of(run, config, name), name) if summarised else [],
        tables=[table_of("Everything measured, by layer", metrics.dropna(axis="columns", how="all"))]
        + _tables(run, name, records, pairs),
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


def _tables(run: Path, name: str, records: pd.DataFrame, pairs: Rows) -> list[Table]:
    tables = [table_of(caption, table) for caption, table in all_tables(records, pd.DataFrame(pairs)).items()]
    for path in sorted(run.glob(f"contrast_{name}_vs_*.csv")):
        other = path.stem.removeprefix(f"contrast_{name}_vs_")
        tables.append(table_of(f"Difference from {other}, by layer", pd.read_csv(path)))
    return tables


def _json_lines(path: Path) -> Rows:
    return [json.loads(line) for line in whole_lines(path)] if path.exists() else []
