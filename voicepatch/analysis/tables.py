"""Small tables for reading: for whom the patch works, and what the model answers when nothing is patched.

    for title, table in all_tables(records, pairs, swept).items(): ...
    unpatched(records, pairs)                        # one row a clip

Rates are at a few layers, evenly spaced over those patched, at the highest dose.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import DOSE, at_highest_dose
from voicepatch.analysis.logits import logits_of

MAX_LAYERS = 6
LENGTH_BINS = [-1, -0.25, -0.05, 0.05, 0.25, 1]
LENGTHS = [
    "B shorter by over 25 %",
    "B shorter by 5 to 25 %",
    "equal within 5 %",
    "B longer by 5 to 25 %",
    "B longer by over 25 %",
]


def lengths_apart(records: pd.DataFrame) -> pd.Series:
    """(len_b − len_a) / the longer of the two: the part of B that is cut off, or the part of A that stays."""
    return (records["len_b"] - records["len_a"]) / records[["len_a", "len_b"]].max(axis=1)


def all_tables(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    swept: Sequence[str] = (),
    by: Mapping[str, pd.Series] = MappingProxyType({}),
) -> dict[str, pd.DataFrame]:
    """Title → table, its groups in a named index (`records` and `pairs` of one experiment).

    `by` has the values of further columns for each pair, which group the pairs too.

    The rates in the tables by pair are those of flips to the target among a group's eligible pairs, which start from 0
    in every group; where another option than the dose is swept, they are by its values. Differences in length are in
    percent of the longer span. Without a donor there are no tables by pair. The tables of unpatched answers count each
    clip once, whether it is A or B, in one pair or in many.
    """
    clips, full_dose = unpatched(records, pairs), at_highest_dose(records)
    labels = list(logits_of(records["logits_base"]).labels)
    has_donor = (pairs["clip_a"] != pairs["clip_b"]).any()
    others = [column for column in swept if column != DOSE]
    tables = _by_pairs(full_dose, pairs, others, labels, by) if has_donor else {}
    has_words = clips["semantic_label"].notna().any()
    if has_words:
        tables["Unpatched answers by semantic label"] = _confusion(clips, "semantic_label", labels)
    tables["Unpatched answers by prosody label"] = _confusion(clips, "prosody_label", labels)
    if has_words:
        tables["Unpatched answers of clips whose two labels differ"] = _of_conflicts(clips)
    tables["Probability mass of the labels"] = _label_mass(clips, full_dose, "pairs patched" if has_donor else "clips")
    return tables


def _by_pairs(
    full_dose: pd.DataFrame, pairs: pd.DataFrame, others: list[str], labels: list[str], by: Mapping[str, pd.Series]
) -> dict[str, pd.DataFrame]:
    """The tables of flips to the target by label, by length and by further columns."""
    columns = ["pair_id", "layer", *others, "eligible", "flip_to_target", "len_a", "len_b"]
    frame = full_dose[columns].merge(pairs, on="pair_id", suffixes=("", "_of_pair"))
    kind = frame["kind"].iloc[0]
    ordered = pd.CategoricalDtype(labels, ordered=True)
    frame = frame.assign(
        **{
            "target": frame["target"].astype(ordered),
            "A": frame[f"{kind}_label_a"].astype(ordered),
            "B": frame[f"{kind}_label_b"].astype(ordered),
            "length": pd.cut(lengths_apart(frame), LENGTH_BINS, labels=LENGTHS, include_lowest=True),
            "positions": frame["len_b"] - frame["len_a"],
        }
    )
    by_length = _by_pair(frame, ["length"], others)
    at_one_layer = frame[frame["layer"] == frame["layer"].min()]
    median = at_one_layer.groupby([*others, "length"], observed=True)["positions"].median()
    by_length.insert(2, "median len_b − len_a, positions", median)
    return {
        "By target label": _by_pair(frame, ["target"], others),
        "By label of A and B": _by_pair(frame, ["A", "B"], others),
        "By difference in length": by_length,
        **{
            f"By {column}": _by_column(frame, column, values.set_axis(pairs["pair_id"]), others)
            for column, values in by.items()
        },
    }


def _by_column(frame: pd.DataFrame, column: str, values: pd.Series, others: list[str]) -> pd.DataFrame:
    table = _by_pair(frame.assign(group=frame["pair_id"].map(values)), ["group"], others)
    return table.rename_axis(index={"group": column})


def unpatched(records: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The model's answer to each clip, unpatched: one row a clip, sorted by clip_id.

    Columns clip_id, text_id, text_type and speaker where the pairs have them, semantic_label, prosody_label, answer,
    label_mass.
    Clips A answer by `logits_base`, clips B by `logits_donor`; the labels' mass is known of clips A only.
    """
    known = [c for c in ("logits_base", "logits_donor", "label_mass_base") if c in records]
    first = records.drop_duplicates("pair_id")[["pair_id", *known]].merge(pairs, on="pair_id")
    sides = []
    for side, logits in (("a", "logits_base"), ("b", "logits_donor")):
        columns = ["clip", "text_id", "text_type", "speaker", "semantic_label", "prosody_label"]
        clips = first[[f"{name}_{side}" for name in columns if f"{name}_{side}" in first]]
        clips = clips.rename(columns=lambda name: name[:-2]).rename(columns={"clip": "clip_id"})
        mass = first["label_mass_base"] if side == "a" and "label_mass_base" in known else np.nan
        sides.append(clips.assign(answer=logits_of(first[logits]).answers(), label_mass=mass))
    clips = pd.concat([side.astype({"label_mass": float}) for side in sides])
    return clips.drop_duplicates("clip_id").sort_values("clip_id").reset_index(drop=True)


def _layers(records: pd.DataFrame) -> list[int]:
    layers = sorted(records["layer"].unique())
    picked = np.linspace(0, len(layers) - 1, min(MAX_LAYERS, len(layers))).round().astype(int)
    return [layers[i] for i in picked]


def _by_pair(frame: pd.DataFrame, groups: list[str], others: list[str]) -> pd.DataFrame:
    groups = [*others, *groups]
    layers = _layers(frame)
    shown = frame[frame["layer"].isin(layers)]
    counts = frame.drop_duplicates(["pair_id", *others]).groupby(groups, observed=True)["eligible"].agg(["size", "sum"])
    eligible = shown[shown["eligible"]].astype({"flip_to_target": float})
    rates = eligible.pivot_table("flip_to_target", groups, "layer", observed=True)
    table = counts.set_axis(["pairs", "eligible"], axis="columns")
    for layer in layers:
        table[f"flip_to_target_rate_eligible, layer {layer}"] = rates[layer] if layer in rates else np.nan
    return table


def _confusion(clips: pd.DataFrame, truth: str, labels: list[str]) -> pd.DataFrame:
    table = pd.crosstab(clips[truth], clips["answer"]).reindex(index=labels, columns=labels, fill_value=0)
    agreeing = pd.Series(np.diag(table), table.index) / table.sum(axis=1).replace(0, np.nan)
    answers = table.rename(columns="answers {}".format).rename_axis(columns=None)
    return answers.rename_axis(truth).assign(agreement=agreeing)


def _of_conflicts(clips: pd.DataFrame) -> pd.DataFrame:
    conflict = clips[clips["semantic_label"] != clips["prosody_label"]]
    groups = {"all": conflict}
    if "text_type" in conflict:
        groups |= {f"{name} texts": group for name, group in conflict.groupby("text_type")}
    rows = {}
    for name, group in groups.items():
        words, voice = (group["answer"] == group[f"{by}_label"] for by in ("semantic", "prosody"))
        rows[name] = [len(group), words.mean(), voice.mean(), (~(words | voice)).mean()]
    table = pd.DataFrame.from_dict(rows, "index", columns=["clips", "semantic label", "prosody label", "neither"])
    return table.rename_axis("clips whose labels differ")


def _label_mass(clips: pd.DataFrame, records: pd.DataFrame, what: str) -> pd.DataFrame:
    masses = {"unpatched clips A": clips["label_mass"].dropna()}
    if "label_mass_patch" in records:
        by_layer = records.groupby("layer")["label_mass_patch"]
        masses |= {f"{what} at layer {layer}": by_layer.get_group(layer) for layer in _layers(records)}
    rows = {name: [len(m), m.min(), m.quantile(0.05), m.median()] for name, m in masses.items()}
    table = pd.DataFrame.from_dict(rows, "index", columns=["readouts", "least", "5 % have less than", "median"])
    return table.rename_axis("where")
