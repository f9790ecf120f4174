"""The metrics of an experiment by a column of the data: `--by COLUMN`.

    metrics_by(records, sample.pairs, "text_type")       # a DataFrame, one row a (value, layer)
    breakdown(results, "prosody", "text_type")           # patching_metrics_prosody_by_text_type.csv
    breakdown_columns(results, results.experiment("prosody"))

A pair has the value of its clips. Where A and B differ in a column, in any pair, every value is `A → B`; `a.COLUMN` and
`b.COLUMN` are the values of one side. A clip without a value has `NO_VALUE`, so that the counts add up to the whole's.
"""

import difflib
import hashlib
from collections.abc import Callable, Collection, Sequence

import pandas as pd

from voicepatch.analysis.experiment_results import TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.layer_metrics import layer_intervals, layer_metrics
from voicepatch.analysis.metrics import reserved
from voicepatch.analysis.results import Results
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.text import escape, file_name_part, listing, short_repr
from voicepatch.types.pair import Pair, pair_row
from voicepatch.types.record import column_key
from voicepatch.types.selection import label_roles
from voicepatch.types.task import Task, default_task

NO_VALUE = "no value"
TEXT_TYPE = "text_type"
FEWEST = 5  # pairs of a value that counts for the largest difference
LONGEST_NAME = 60  # of a column in a file's name
MOST_VALUES = 12  # that a figure or a line shows; the table has all
Tables = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]


def breakdown_columns(results: Results, experiment: ExperimentResults) -> list[str]:
    """The columns by which an experiment is broken down: the text type if there is one, and those asked for.

    Asked for is what any experiment of the run records as `by`, and what this command was given. `UserError` for a
    column that the pair list lacks.
    """
    found = [TEXT_TYPE] if experiment.pairs[f"{TEXT_TYPE}_a"].notna().any() else []
    found = list(dict.fromkeys([*found, *_asked_for(results)]))
    check_columns(found, pair_columns(experiment.pairs, results.task), experiment.swept)
    return found


def _asked_for(results: Results) -> list[str]:
    recorded = [column for one in results.config["experiments"].values() for column in one.get("by", ())]
    return list(dict.fromkeys([*recorded, *results.by]))


def single_values(results: Results, experiment: ExperimentResults) -> list[str]:
    """A line for each column asked for of which the pairs have one value alone, so that nothing is broken down."""
    lines = []
    for column in _asked_for(results):
        values = pair_values(experiment.measured_pairs, column, results.task)
        if values.nunique() == 1:
            who = f"{experiment.kind} pairs" if experiment.pairs_of_clips else "clips"
            lines.append(f"all {len(values)} {who} have {escape(column)} {escape(values.iloc[0])}")
    return lines


def breakdown(results: Results, name: str, column: str) -> pd.DataFrame:
    """The metrics of an experiment by a column, as `results.cached(breakdown, name, column)`."""
    experiment = results.experiment(name)
    return metrics_by(experiment.records, experiment.pairs, column, results.task, experiment.metrics_of)


def metrics_by(
    records: pd.DataFrame,
    pairs: pd.DataFrame | Sequence[Pair],
    column: str,
    task: Task | None = None,
    metrics_of: Tables | None = None,
) -> pd.DataFrame:
    """The metrics of the pairs of each value, after a first column of that name; values are in their order.

    `pairs` are those of a sample, or the rows of a pair list. `metrics_of(records, pairs)` makes the table of one
    value; without it, it is that of `layer_metrics` with 95 % limits. `UserError` for a column that the pairs lack.
    """
    pairs = pairs if isinstance(pairs, pd.DataFrame) else _table(pairs)
    values = pair_values(pairs, column, task or default_task())
    tables = {}
    for value in ordered(values):
        mine = pairs[values == value]
        of_value = records[records["pair_id"].isin(set(mine["pair_id"]))]
        if len(of_value):
            tables[value] = (metrics_of or _with_limits)(of_value, mine)
    return pd.concat(tables, names=[column, None]).reset_index(column).reset_index(drop=True)


def pair_values(pairs: pd.DataFrame, column: str, task: Task) -> pd.Series:
    """Each pair's value of a column, as text."""
    known = pair_columns(pairs, task)
    check_columns([column], known)
    side, name = _side_and_name(column, known)
    a, b = (pairs[f"{known[name]}_{one}"].fillna(NO_VALUE) for one in "ab")
    if side:
        return a if side == "a" else b
    return a if (a == b).all() else a + " → " + b


def ordered(values: pd.Series) -> list[str]:
    """The different values, numbers by their size."""
    found = list(values.unique())
    numbers = pd.to_numeric(pd.Series(found), errors="coerce")
    return sorted(found) if numbers.isna().any() else [found[place] for place in numbers.argsort()]


def pair_columns(pairs: pd.DataFrame, task: Task) -> dict[str, str]:
    """The columns of a pair list by their names in the data -> its keys without `_a` and `_b`."""
    roles = {field: column for column, field in label_roles(task).items()}
    names = {"clip": "clip_id", "prosody_label": None, "semantic_label": None, **roles}
    stems = [key.removesuffix("_a") for key in pairs if key.endswith("_a")]
    renamed = {column_key(column, "a").removesuffix("_a"): column for column in ("prosody_label", "semantic_label")}
    return {name: stem for stem in stems if (name := names.get(stem, renamed.get(stem, stem)))}


def check_columns(by: Sequence[str], known: Collection[str], taken: Collection[str] = ()) -> None:
    """`UserError` for a column that is not known, with the nearest one, and for one whose name the metrics have.

    `taken` are further names that metrics have: the options of experiments.
    """
    for column in by:
        _, name = _side_and_name(column, known)
        if name not in known:
            close = difflib.get_close_matches(name[:80], known, n=1)
            hint = f"did you mean {listing(close)}?" if close else f"there is {listing(known, most=12)}"
            raise UserError(f"--by {short_repr(column)}: the data have no such column; {hint}", BAD_USAGE)
        if column in (*reserved(), *taken, "congruence"):
            raise UserError(f"--by {column}: the tables have another {column}; use a.{column} or b.{column}", BAD_USAGE)


def _side_and_name(column: str, known: Collection[str]) -> tuple[str, str]:
    """`a.gender` as "a" and "gender"; the side is "" for a column of that name, and for one that is not known."""
    side, dot, name = column.partition(".")
    return (side, name) if dot and side in ("a", "b") and column not in known else ("", column)


def breakdown_file(name: str, column: str) -> str:
    """How the files of a breakdown end: `prosody_by_text_type`.

    The name of the column is followed by a hash where the file of another column could have the same name: some file
    systems do not tell capitals from small letters.
    """
    part = file_name_part(column)
    if part != column.lower() or len(part) > LONGEST_NAME:
        part = f"{part[:LONGEST_NAME]}-{hashlib.sha256(column.encode()).hexdigest()[:8]}"
    return f"{name}_by_{part}"


def largest_difference(table: pd.DataFrame, column: str, rate: str) -> str:
    """A line with the rate of each value, at the layer at which the values differ most; "" for one value."""
    if table[column].nunique() < 2:
        return ""
    count = "eligible_count" if rate == TO_TARGET_ELIGIBLE else "n_pairs"
    by_layer = table[table[count] >= FEWEST].pivot(index="layer", columns=column, values=rate).dropna(axis="columns")
    differences = by_layer.max(axis=1) - by_layer.min(axis=1)
    if len(by_layer.columns) < 2 or not differences.max() > 0:
        return ""
    layer = differences.idxmax()
    rows = largest(table[table["layer"] == layer].dropna(subset=rate), column)
    rates = ", ".join(f"{escape(row[column])} {row[rate]:.0%} (n = {row[count]})" for _, row in rows.iterrows())
    left_out = table[column].nunique() - len(rows)
    more = f", and {left_out} more" if left_out else ""
    return f"by {escape(column)}, {rate} at layer {layer}, where it differs most: {rates}{more}"


def largest(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of the `MOST_VALUES` values with the most pairs, in their order."""
    counts = table.groupby(column, sort=False)["n_pairs"].max().nlargest(MOST_VALUES)
    return table[table[column].isin(counts.index)]


def _with_limits(records: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    return layer_metrics(records).merge(layer_intervals(records, pairs), on="layer")


def _table(pairs: Sequence[Pair]) -> pd.DataFrame:
    clips = [clip for pair in pairs for clip in (pair.a, pair.b)]
    columns = dict.fromkeys(column for clip in clips for column in clip.columns)
    named = [*columns, *(["language"] if any(clip.language for clip in clips) else [])]
    return pd.DataFrame([pair_row(pair, named) for pair in pairs])
