"""Several runs side by side, or the parts of one run: models, prompts, seeds, corpora, sorts of texts.

    table, figures = compare([Path("results/A"), Path("results/B")], Path("results/comparison"))
    table, figures = compare([Path("results/A")], out, by="text_type")            # a curve for each value
    table, figures = compare(runs, out, experiment="noise-prosody")               # instead of the main experiments
    print(as_text(table))

Curves are on relative depth. Metrics and hand-over layers are computed from each run's records; its dose and the layers
patched stand beside them.
"""

import difflib
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from voicepatch.analysis.cells import DOSE, ranges, value_name
from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrast_runs import Compared, by_value, contrast_groups, of_experiment
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import FROM_BASE, ExperimentResults
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import with_interval
from voicepatch.analysis.samples import speakers_note
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.figures import curves, figure_style
from voicepatch.figures.wording import words
from voicepatch.files import CONFIG, write_whole
from voicepatch.store.reading import read_rows
from voicepatch.text import counted, escape, listing

COMPARED = "compared.json"  # in the folder: what was compared


class Comparison(msgspec.Struct, frozen=True):
    """What `compare` was asked for; the runs are absolute paths."""

    runs: list[str]
    by: str | None
    experiment: str | None


ALL_PAIRS = "all pairs"
ESTIMATES = {"hand_over_layer": ("low", "high"), "area": ("area_low", "area_high")}
# What the terminal shows of the table: these always, and of the others those that differ.
ALWAYS = ("curve", "n_pairs")
MEASURED = ("flip_to_target_rate_first_layer", "donor_is_target_rate", "base_is_target_rate", "relative_depth")


def compare(
    runs: list[Path], out: Path, by: str | None = None, experiment: str | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Write `hand_over.csv` and a figure for each experiment that is compared into `out`; gives the table and the PNGs.

    These are the main experiments of both kinds of pair, or `experiment`, as it is called in the files of the runs.
    `by` is a column of the data: each of its values is a curve of its own. `attrs["contrasts"]` of the table are lines
    on how the curves differ, two by two.

    Raises `UserError` for a directory without a finished experiment of one curve, for one whose files do not hold
    together, for one that is named twice, and for a single curve.
    """
    groups, left_out = _groups(runs, by, experiment)
    _remove_earlier(out)
    table = _table(groups)
    write_table(out / "hand_over.csv", table, ["alpha"])
    asked = Comparison([str(run.resolve()) for run in runs], by, experiment)
    write_whole(out / COMPARED, msgspec.json.encode(asked) + b"\n")
    figures = []
    for stem, chart in _charts(groups, table, by).items():
        figures += figure_style.save(chart, out / stem)
    lines = contrast_groups(groups, out)
    if any(len(mine) > 2 for mine in groups.values()):
        lines.append("these p values are not corrected for the number of contrasts")
    table.attrs["contrasts"] = left_out + lines
    return table, [figure for figure in figures if figure.suffix == ".png"]


def charts_in(folder: Path) -> dict[str, Any]:
    """The figures of a folder that `compare` wrote, by file stem, from the records of its runs."""
    again = "call compare again"
    asked = next((row for _, row in read_rows(folder / COMPARED, Comparison, again)), None)
    if asked is None:
        raise UserError(f"{folder / COMPARED}: is empty; {again}")
    groups, _ = _groups([Path(run) for run in asked.runs], asked.by, asked.experiment)
    return _charts(groups, _table(groups), asked.by)


def _groups(runs: list[Path], by: str | None, experiment: str | None) -> tuple[dict[str, list[Compared]], list[str]]:
    """The curves that are compared with each other, by experiment, and lines on what is left out."""
    _require_each_once(runs)
    groups: dict[str, list[Compared]] = defaultdict(list)
    left_out = []
    for run, name in zip(runs, _names(runs), strict=True):
        results = _results(run)
        if not experiment and (main := results.main("semantic")) and main.side.records.empty:
            left_out.append(f"semantic: {name} is left out: {NONE_LEFT}")
        for one in [_named(run, results, experiment)] if experiment else _mains(run, results):
            whole = of_experiment(name, results, one)
            groups[one.name] += _parts(whole, by, len(runs)) if by else [whole]
    if len(runs) == 1 and not by:
        raise UserError(
            f"{runs[0]}: is one run; name another one, or give --by COLUMN to compare parts of it", BAD_USAGE
        )
    return groups, left_out


def _table(groups: dict[str, list[Compared]]) -> pd.DataFrame:
    return pd.DataFrame([_row(curve) for mine in groups.values() for curve in mine])


def _charts(groups: dict[str, list[Compared]], table: pd.DataFrame, by: str | None) -> dict[str, Any]:
    of_group = {group: table[table["experiment"] == group] for group in groups}
    return {f"compare_{group}": _chart(mine, of_group[group], by) for group, mine in groups.items()}


def _remove_earlier(out: Path) -> None:
    """Remove what an earlier comparison wrote into the folder, which another one may not write again."""
    if not (out / "hand_over.csv").is_file():
        return
    for pattern in (
        "contrast_*_vs_*.csv",
        "contrasts.json",
        "compare_*.png",
        "compare_*.svg",
        "compare_*.txt",
        COMPARED,
    ):
        for file in out.glob(pattern):
            file.unlink(missing_ok=True)


def _parts(whole: Compared, by: str, n_runs: int) -> list[Compared]:
    """A curve for each value of a column, with the run in its name where there are several."""
    return by_value(whole, by, f"{whole.name}, " if n_runs > 1 else "")


def _chart(mine: list[Compared], rows: pd.DataFrame, by: str | None) -> Any:
    first, tables = mine[0].experiment, []
    rate = FROM_BASE if first.rate == FROM_BASE else curves.TO_TARGET
    for one in mine:
        curve = curves.series(one.curve, rate, rate, "n_pairs")
        if rate == curves.TO_TARGET:
            curve = pd.concat([curve, curves.references(one.curve)])
        tables.append(curve.assign(run=one.name, depth=curve["layer"] / max(1, one.n_layers - 1)))
    what = f"{first.kind.capitalize()} pairs" if first.is_main else f"Experiment {escape(first.name)}"
    title = f"{what} by {words(escape(by))}" if by else f"{what} in {counted(len(mine), 'run')}"
    notes = dict.fromkeys(note for one in mine if (note := speakers_note(one.side.pairs)))
    about = [_note(row) for row in rows.to_dict("records")]
    same = set(map(_selection, rows.to_dict("records")))
    selected = [f"all curves: {same.pop()}"] if len(same) == 1 and same != {ALL_PAIRS} else []
    return curves.depth_curves(pd.concat(tables), rate, title, [*about, *selected, *notes, *differing(rows)])


def as_text(table: pd.DataFrame) -> str:
    """What is the same in all rows in one line, and a table of what differs, with intervals."""
    shown = pd.DataFrame({column: table[column] for column in ALWAYS})
    facts = [column for column in table if column not in (*ALWAYS, *MEASURED, *ESTIMATES, *sum(ESTIMATES.values(), ()))]
    if table["curve"].eq(table["run"]).all():
        facts.remove("run")
    facts = [column for column in facts if not column.endswith("sha256") and column != "prompt"]
    differ = [column for column in facts if table[column].nunique(dropna=False) > 1]
    same = {column: table[column].iloc[0] for column in facts if column not in differ}
    for column in differ:
        shown[column.replace("_", " ")] = table[column]
    for column, limits in ESTIMATES.items():
        shown[column.replace("_", " ")] = [
            _estimate(*row) for row in table[[column, *limits]].itertuples(index=False, name=None)
        ]
    shown = shown.rename(columns={"n_pairs": "pairs"})
    known = [f"{column.replace('_', ' ')} {_plain(value)}" for column, value in same.items() if not pd.isna(value)]
    return f"the same in all: {', '.join(known)}\n{shown.to_string(index=False, na_rep='–')}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _estimate(value: Any, low: Any, high: Any) -> str:
    if pd.isna(value):
        return "–"
    text, interval = with_interval(value, *(None if pd.isna(limit) else limit for limit in (low, high)))
    return f"{text} ({interval.removeprefix('95 % interval ')})" if interval else text


def differing(table: pd.DataFrame) -> list[str]:
    """What else differs between the runs of a kind of pair than what they are compared for, and bears on the curves."""
    lines = []
    if table["model_sha256"].nunique() > 1:
        lines.append(f"the models differ: {_each(table, 'model')}")
    if table["data_sha256"].nunique() > 1:
        lines.append(f"the data differ: {_each(table, 'data')}")
    if table["task_sha256"].nunique() > 1:
        lines.append(f"the tasks differ: {_each(table, 'task')}")
    elif table["prompt"].nunique() > 1:
        lines.append("the prompts differ in more than the question; each is in its run's patching_config.json")
    selections = {row["curve"]: _selection(row) for row in table.to_dict("records")}
    if len(set(selections.values())) > 1:
        lines.append(f"the selections differ: {'; '.join(map(': '.join, selections.items()))}")
    if table["frames_per_second"].nunique() > 1:
        spans = "; ".join(
            f"{row['curve']} {row['median_span']:g} positions at {row['frames_per_second']:g} a second"
            for row in table.to_dict("records")
        )
        lines.append(f"the spans differ (median): {spans}")
    if table["alpha"].nunique() > 1:
        lines.append("the doses differ, and with them the rates and the hand-over layers")
    if (table["layers"] != "all").any():
        lines.append(
            "not all layers were patched: a hand-over layer is relative to the rate at the first layer patched"
        )
    return lines


def _each(table: pd.DataFrame, column: str) -> str:
    return "; ".join(f"{row['curve']} {row[column]}" for row in table.to_dict("records"))


def _selection(row: dict[str, Any]) -> str:
    """Which clips and pairs a curve is of, as the options that chose them."""
    options = [f"--only {row['only']}"] if row["only"] != "all" else []
    options += [f"--where {escape(row['where'])}"] if pd.notna(row["where"]) else []
    return " ".join(options) or ALL_PAIRS


def _note(row: dict[str, Any]) -> str:
    at, low, high = (None if pd.isna(row[column]) else row[column] for column in ("hand_over_layer", "low", "high"))
    found = "none" if at is None else "{} ({})".format(*with_interval(at, low, high, none="no interval"))
    frames = "" if pd.isna(row["frames_per_second"]) else f" at {row['frames_per_second']:g} frames a second"
    return (
        f"{row['curve']}: n = {row['n_pairs']} pairs, {value_name(DOSE, row['alpha'])}, {_layers(row)}; "
        f"hand-over layer {found}; median span {row['median_span']:g} positions{frames}"
    )


def _layers(row: dict[str, Any]) -> str:
    return f"all {row['n_layers']} layers" if row["layers"] == "all" else f"layers {row['layers']} of {row['n_layers']}"


def _require_each_once(runs: list[Path]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if run.resolve() in seen:
            raise UserError(f"{run}: is named twice; name each run once", BAD_USAGE)
        seen.add(run.resolve())


def _names(runs: list[Path]) -> list[str]:
    """The directories' names, with their parents' where two are equal."""
    names = [escape(run.resolve().name) for run in runs]
    return [
        f"{escape(run.resolve().parent.name)}/{name}" if names.count(name) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def _results(run: Path) -> Results:
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: not a run directory, it has no {CONFIG}")
    return Results(run)


def _mains(run: Path, results: Results) -> list[ExperimentResults]:
    for kind in KINDS:
        if kind in results.names:
            results.experiment(kind)  # an error if its files contradict each other
    mains = [main for main in map(results.main, KINDS) if main is not None and not main.side.records.empty]
    if not mains:
        raise UserError(f"{run}: has no finished main experiment with one curve; run `python cli.py patch` there first")
    return mains


def _named(run: Path, results: Results, name: str) -> ExperimentResults:
    """The experiment of that name; `UserError` where the run has none, or it is no curve."""
    curves_of = [one.name for one in results.valid if one.is_curve]
    if name not in results.names:
        close = difflib.get_close_matches(name, results.names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there is {listing(curves_of)}"
        raise UserError(f"{run}: has no experiment {escape(name)}; {hint}", BAD_USAGE)
    if not results.experiment(name).is_curve:
        raise UserError(
            f"{run}: {escape(name)} is not finished, or has several rows a layer; what can be compared is "
            f"{listing(curves_of) or 'nothing there'}",
            BAD_USAGE,
        )
    return results.experiment(name)


def _row(one: Compared) -> dict[str, Any]:
    main, results, n_layers, metrics = one.experiment, one.results, one.n_layers, one.curve
    found, area = one.hand_over, one.area
    layer = found["layer"]
    layers = main.settings["layers_to_patch"]
    model, data, prompt = (results.config[part] for part in ("model", "data", "prompt"))
    return {
        "curve": one.name,
        "run": one.run,
        "kind": main.kind,
        "experiment": main.name,
        "model": " ".join(filter(None, [escape(model["name"]), model.get("family") and f"({model['family']})"])),
        "data": escape(data["name"]),
        "task": results.task.name,
        "seed": main.seed,
        "n_layers": n_layers,
        "layers": "all" if len(layers) == n_layers else ranges(layers),
        "alpha": float(metrics[DOSE].iloc[0]),
        "only": main.settings["only"],
        "where": "; ".join(main.settings["where"]) or None,
        "hand_over_layer": layer,
        "low": found["low"],
        "high": found["high"],
        "area": area["area"],
        "area_low": area["low"],
        "area_high": area["high"],
        "relative_depth": None if layer is None else layer / max(1, n_layers - 1),
        "flip_to_target_rate_first_layer": metrics["flip_to_target_rate"].iloc[0],
        "donor_is_target_rate": metrics["donor_is_target_rate"].iloc[0],
        "base_is_target_rate": metrics["base_is_target_rate"].iloc[0],
        "n_pairs": int(metrics["n_pairs"].max()),
        "frames_per_second": model.get("frames_per_second"),
        "median_span": float(one.side.records["len_a"].median()),
        "model_sha256": model["sha256"][:12],
        "data_sha256": data["sha256"][:12],
        "task_sha256": results.task.sha256[:12],
        "prompt": hashlib.sha256(prompt["text"].encode()).hexdigest()[:12],
    }
