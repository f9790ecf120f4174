"""Until which layer is A's own span needed? The knock-out's curves of answers by the voice and by the words.

    found = results.cached(need_of)      # None without a finished experiment beside a main one
    found = need(records, pairs, n_layers=10)
    found.table                          # need.csv: a row for each group of answers and layer
    found.statistics                     # statistics_need.json: a midpoint for each group, and the difference
    results.cached(need_by, "text_type") # need_by_text_type.csv: the table for each value of a column

A value is whether an answer changes when no later position can attend to A's span from layer l on. Clips count whose
words and voice have different labels, each once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.areas import Falling, area_difference, area_of
from voicepatch.analysis.breakdown import ordered, pair_values
from voicepatch.analysis.cells import by_cell, ranges
from voicepatch.analysis.clusters import RESAMPLES, correlation, limits, mean_of
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.hand_over import hand_over
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import Sample, sample_of
from voicepatch.analysis.sharing import Draws

VOICE, WORDS, ANY = "voice", "words", "any label"
FOLLOW = {VOICE: "answers that follow A's voice", WORDS: "answers that follow A's words", ANY: "answers"}
LOST = "lost_rate"
COLUMNS = ["follows", "layer", "n_clips", LOST, f"{LOST}_low", f"{LOST}_high"]
DEFINITION = (
    "Of the answers that the unpatched model gives, the share that changes when the positions after the audio span "
    "cannot attend to it from layer l on. An answer follows the voice (the words) if it is the clip's label of the "
    "voice (the words); clips count whose two labels differ. The midpoint is the layer at which the share falls below "
    "half of its value at the first layer. With l = the number of layers nothing is blocked, so the share ends at 0."
)


@dataclass(frozen=True)
class Need:
    """What knock-outs show; `pairs` has a row for each clip that counts.

    Of a run, `names` are the experiments that count, and `left_out` has each of the others with the reason.
    """

    table: pd.DataFrame
    statistics: dict[str, Any]
    pairs: pd.DataFrame
    names: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out_lines(self) -> list[str]:
        """Each experiment that does not count, with the reason, as a line."""
        return [f"{name} does not count: {why}" for name, why in self.left_out.items()]


def need_of(results: Results) -> Need | None:
    """Of the finished knock-outs of a run, on the clips of its main experiments and at the same layers.

    A clip counts once. None where the run has no knock-out, damaged or not.
    """
    counted: list[ExperimentResults] = []
    damaged = [name for name in results.invalid if results.config["experiments"][name].get("beside_main")]
    left_out = dict.fromkeys(damaged, "its files do not hold together")
    for one in results.valid:
        if one.settings["beside_main"] and one.is_curve:
            if why := _why_not(results, one, counted):
                left_out[one.name] = why
            else:
                counted.append(one)
    if counted:
        records, pairs = pd.concat([one.records for one in counted]), pd.concat([one.measured_pairs for one in counted])
        found = need(records, pairs, results.config["model"]["n_layers"], counted[0].seed)
        return replace(found, names=[one.name for one in counted], left_out=left_out)
    nothing = Need(pd.DataFrame(columns=COLUMNS), {"difference": None}, pd.DataFrame(), [], left_out)
    return nothing if left_out else None


def _why_not(results: Results, one: ExperimentResults, counted: list[ExperimentResults]) -> str:
    """Why a knock-out does not count beside those `counted` already; "" where it does."""
    again = f"python cli.py {one.settings['intervention']} --pairs {one.kind} --overwrite runs it again"
    main = next((main for main in results.valid if main.is_main and main.kind == one.kind), None)
    if main is not None and not set(one.pairs["clip_a"]) <= {*main.pairs["clip_a"], *main.pairs["clip_b"]}:
        return f"it ran on other clips than the {one.kind} pairs; {again}"
    layers = [ranges(each.settings["layers_to_patch"]) for each in (one, *counted[:1])]
    if layers[0] != layers[-1]:
        return f"it ran at layers {layers[0]}, {counted[0].name} at {layers[1]}; {again}"
    return ""


def need(records: pd.DataFrame, pairs: pd.DataFrame, n_layers: int, seed: int = 42) -> Need:
    """Of the records of `need` and its pairs, in which a clip may be repeated."""
    pairs = pairs.drop_duplicates("clip_a").sort_values("pair_id")
    records = records.drop_duplicates(["pair_id", "layer"])
    groups = _groups(records, pairs, seed)
    ends = n_layers if records["layer"].max() == n_layers - 1 else None
    curves = _curves(groups, ends)
    statistics: dict[str, Any] = {
        name: {"n_clips": len(group.values), **group.midpoint(ends), "area": area_of(curves[name])}
        for name, group in groups.items()
    }
    both = {VOICE, WORDS} <= set(groups)
    statistics["difference"] = area_difference(curves[VOICE], curves[WORDS]) if both else None
    statistics |= {"definition": DEFINITION, "seed": seed}
    tables = [pd.DataFrame({"follows": name} | group.by_layer()) for name, group in groups.items()]
    counted = pd.concat([pairs[:0], *(group.pairs for group in groups.values())])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return Need(table, statistics, counted)


def need_by(results: Results, column: str) -> pd.DataFrame:
    """The table of `need` for each value of a column, after a first column of that name: a row a (value, group, layer).

    As `results.cached(need_by, column)`, of a run whose knock-outs count.
    """
    found = results.cached(need_of)
    counted = [results.experiment(name) for name in found.names]
    records = pd.concat([one.records for one in counted]).drop_duplicates(["pair_id", "layer"])
    values, tables = pair_values(found.pairs, column, results.task), []
    for value in ordered(values):
        groups = _groups(records, found.pairs[values == value], counted[0].seed)
        tables += [pd.DataFrame({column: value, "follows": name} | group.by_layer()) for name, group in groups.items()]
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Group:
    """The clips whose answers follow the same label: `values` [clips, layers], whether the answer changes."""

    values: pd.DataFrame
    pairs: pd.DataFrame
    seed: int

    def until(self, ends: int | None) -> pd.DataFrame:
        """The values, and 0 at the layer `ends`, from which on nothing is blocked."""
        return self.values if ends is None else self.values.assign(**{"end": 0.0}).rename(columns={"end": ends})

    def curve(self, ends: int | None, sample: Sample) -> Falling:
        """The curve for its area; `sample` is of the clips."""
        values, floor = self.until(ends), np.zeros(len(self.values))
        return Falling(values.columns.to_numpy(float), values.to_numpy(), floor, sample.texts, sample.speakers)

    def midpoint(self, ends: int | None) -> dict[str, Any]:
        """`layer`, `low`, `high` and `reason`, as those of a hand-over layer."""
        values = self.until(ends).set_axis(self.pairs["pair_id"])
        records = values.melt(ignore_index=False, var_name="layer", value_name="flip_to_target").reset_index()
        found = hand_over(records.assign(eligible=True, patch_alpha=1.0), self.pairs, seed=self.seed, floor="0")
        return {name: found[name] for name in ("layer", "low", "high", "reason")}

    def by_layer(self) -> dict[str, Any]:
        """The share of answers that change at each layer, with 95 % limits."""
        sharing = sample_of(self.pairs).sharing
        mean = mean_of(self.values.to_numpy(), sharing, Draws(sharing.n_codes, RESAMPLES, self.seed))
        low, high = limits(mean, is_rate=True, pooled=correlation(mean))
        columns = {"layer": self.values.columns, "n_clips": mean.count, LOST: mean.value}
        return columns | {f"{LOST}_low": low, f"{LOST}_high": high}


def _groups(records: pd.DataFrame, pairs: pd.DataFrame, seed: int) -> dict[str, Group]:
    """The clips whose answers follow the voice, and those whose answers follow the words, where there are any."""
    values = by_cell(records, pairs, "flip_from_base").reset_index(drop=True)
    members = {name: mine for name, mine in _members(records, pairs).items() if mine.any()}
    return {name: Group(values[mine], pairs[mine], seed) for name, mine in members.items()}


def _curves(groups: dict[str, Group], ends: int | None) -> dict[str, Falling]:
    """The curve of each group; their texts, and their speakers where there are enough, are one sample."""
    if not groups:
        return {}
    sample, start, curves = sample_of(*(group.pairs for group in groups.values())), 0, {}
    for name, group in groups.items():
        curves[name] = group.curve(ends, sample.rows(slice(start, start + len(group.pairs))))
        start += len(group.pairs)
    return curves


def _members(records: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which clips answer with the voice's label and which with the words', where the two differ.

    All clips are one group where no clip has two labels that differ.
    """
    answers = pairs["pair_id"].map(records.groupby("pair_id")["pred_base"].first())
    voice, words = pairs["prosody_label_b"], pairs["semantic_label_b"]
    differ = (words != voice).to_numpy()
    if not differ.any() or words.isna().all():
        by_voice = (answers == voice).to_numpy()
        return {VOICE: by_voice} if words.isna().all() else {ANY: np.full(len(pairs), True)}
    return {VOICE: differ & (answers == voice).to_numpy(), WORDS: differ & (answers == words).to_numpy()}
