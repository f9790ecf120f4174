"""A table of a run for a paper: estimates with their intervals, digits by the intervals' width, and a caption.

    table = paper_table(read_table(Path("results/RUN"), "patching_metrics_prosody"), "Prosody pairs.")
    latex(table, "patching_metrics_prosody")         # or markdown(table), csv_text(table)

The tables are the CSV files of a run, or of a folder of `compare`.
"""

import csv
import difflib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Any

import pandas as pd
from msgspec import to_builtins

from voicepatch.analysis.experiment_results import ExperimentResults, what_it_does
from voicepatch.analysis.rounding import decimals, number
from voicepatch.analysis.samples import sample_of, speakers_note
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.figures.captions import sentence
from voicepatch.figures.headings import model_and_data, names_of
from voicepatch.figures.wording import HEADINGS, heading, words
from voicepatch.files import CONFIG
from voicepatch.store.answers import STEM as ANSWERS
from voicepatch.store.experiment import read_experiment
from voicepatch.store.reading import read_config, read_frame
from voicepatch.text import escape, for_xml, listing, short_repr

INTERVALS = "in brackets: 95 % intervals"
METRICS, CELLS = "patching_metrics_", "map_cells_"
# Columns of the metrics that a paper shows; each other one has to be named.
SHOWN = (
    "flip_to_target_rate_eligible",
    "flip_to_target_rate",
    "flip_from_base_rate",
    "delta_logit_target_mean",
    "normalised_recovery_mean",
)
# Columns of a comparison's table of hand-over layers; of the facts those that differ.
SHOWN_COMPARED = ("curve", "n_pairs", "hand_over_layer", "area", "donor_is_target_rate", "base_is_target_rate")
COMPARED_FACTS = ("kind", "model", "data", "task", "seed", "layers", "alpha", "only", "where")
HAND_OVER = (
    "Hand-over layers of the curves that are compared, and the areas under the curves above A's own rate, in layers; "
    "at its hand-over layer a curve first falls below the middle between its first value and A's own rate"
)
TITLES = {
    "need": "answers that change when nothing attends to the audio span from the layer on, by what they follow",
    "answers": "answers to the unpatched clips",
    "answers_summary": "what the unpatched answers follow",
}
COUNTS = {"n_pairs": "pairs", "eligible_count": "eligible pairs", "n_clips": "clips", "n_texts": "texts"}
LIMITS = (("{}_low", "{}_high"), ("low", "high"), ("limit_low", "limit_high"))  # of a column, or of the only estimate
ESTIMATES = ("difference", "effect", "hand_over_layer")  # that the limits without a name belong to
P_VALUES = ("p", "p_max", "q")
DETAILS = (*LIMITS[1], *LIMITS[2], "se", "reason", "site", "marked")
LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{
        "−": "$-$",
        "–": "--",
        "Δ": r"$\Delta$",
        "×": r"$\times$",
        "→": r"$\rightarrow$",
        "…": r"\ldots{}",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        "�": "?",
    },
    # The pictures of control characters, as `for_xml` writes them.
    **{chr(0x2400 + code): rf"\texttt{{{code:02x}}}" for code in range(32)},
}


@dataclass(frozen=True)
class PaperTable:
    """Headings and cells as text; `numeric` says which columns are aligned to the right."""

    caption: str
    headings: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def tables_in(folder: Path) -> list[str]:
    """The names of the tables of a run."""
    return sorted(file.stem for file in folder.glob("*.csv"))


def read_table(folder: Path, name: str) -> tuple[str, pd.DataFrame]:
    """The name and the content of a table; an experiment's name stands for its metrics.

    `UserError` with the nearest name for one that is not there.
    """
    known = tables_in(folder)
    found = next((stem for stem in (name, f"{METRICS}{name}") if stem in known), None)
    if found is None:
        if not known:
            raise UserError(f"{folder}: has no tables; make them with `python cli.py report {folder}`", BAD_USAGE)
        names = [*known, *(stem.removeprefix(METRICS) for stem in known if stem.startswith(METRICS))]
        close = difflib.get_close_matches(name[:80], names, n=1)
        hint = f"did you mean {escape(close[0])}?" if close else f"it has {listing(known, most=30)}"
        raise UserError(f"{folder}: has no table {short_repr(name)}; {hint}", BAD_USAGE)
    _require_whole(folder, found)
    return found, read_frame(folder / f"{found}.csv")


def _require_whole(folder: Path, stem: str) -> None:
    """`UserError` where the experiment of a table is one of a run, and its files do not hold together."""
    config = read_config(folder) if (folder / CONFIG).exists() else {}
    for name in _experiments_in(config, stem):
        read_experiment(folder, config, name)


def experiment_of(folder: Path, name: str) -> ExperimentResults | None:
    """The experiment whose metrics or cells a table of a run holds; None for any other table."""
    config = read_config(folder) if (folder / CONFIG).exists() else {}
    mine = _experiments_in(config, name)[:1] if name.startswith((METRICS, CELLS)) else []
    return ExperimentResults(read_experiment(folder, config, mine[0]), config["task"]["labels"]) if mine else None


def paper_table(
    table: pd.DataFrame,
    caption: str,
    columns: Sequence[str] = (),
    intervals: str = INTERVALS,
    of: ExperimentResults | None = None,
) -> PaperTable:
    """The table with `columns`, or those that a paper shows; a count that is the same in all rows is in the caption.

    `columns` are names in the file, or the headings shown. `intervals` says in the caption what the intervals are,
    where there are any. The experiment that the table is `of` decides what is counted, and whether there is a target.
    """
    table, unit = table.dropna(axis="columns", how="all"), "pair" if of is None else of.unit
    if columns:
        shown, notes = [_column(name, list(table), unit) for name in columns], []
    else:
        shown = _usual(table if of is None else table[of.meaningful(table)])
        same = [name for name in COUNTS if name in shown and table[name].nunique() == 1]
        counts = [f"{table[name].iloc[0]} {COUNTS[name].replace('pair', unit)}" for name in same]
        notes = [f"n = {', '.join(counts)}"] if same else []
        shown = [name for name in shown if name not in same]
    cells = {name: _cells(table, name) for name in shown}
    limits = [_limits_of(table, name) for name in shown]
    text = " ".join(sentence(part) for part in [caption, *notes, *([intervals] if any(limits) else [])])
    rows = [list(row) for row in zip(*cells.values(), strict=True)]
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in shown]
    return PaperTable(text, [_heading(name, unit) for name in shown], rows, numeric)


def caption_of(folder: Path, name: str) -> str:
    """What the table of a run shows, with the model and the data."""
    if not (folder / CONFIG).exists():
        return HAND_OVER if name == "hand_over" else _title(name, "")
    config = read_config(folder)
    mine = _experiments_in(config, name)[:1]
    what = [what_it_does(config["experiments"][one]) for one in mine if name.startswith((METRICS, CELLS))]
    of = names_of if name.startswith(ANSWERS) else model_and_data
    return " ".join(map(sentence, [_title(name, *mine), *what, of(config)]))


def intervals_of(folder: Path, name: str) -> str:
    """What the intervals of a table are: their sample, and for which speakers they hold."""
    config = read_config(folder) if (folder / CONFIG).exists() else {}
    mine = _experiments_in(config, name) or [one for one in config.get("experiments", {}) if one.startswith(f"{name}-")]
    stored = [read_experiment(folder, config, one) for one in mine]
    if not stored:
        return INTERVALS
    pairs = [pd.DataFrame(to_builtins(one.pairs)) for one in stored]
    who = "texts and speakers" if sample_of(*pairs).n_speakers else "texts"
    kind = "simultaneous " if name.startswith(CELLS) else ""
    return ". ".join(filter(None, [f"in brackets: {kind}95 % intervals, {who} as the sample", speakers_note(*pairs)]))


def _experiments_in(config: Mapping[str, Any], stem: str) -> list[str]:
    """The experiments of a run that a table's name holds, the longest name first."""
    found = [name for name in config.get("experiments", {}) if re.search(rf"_{re.escape(name)}(_|$)", stem)]
    return sorted(found, key=len, reverse=True)


def _title(name: str, experiment: str = "") -> str:
    if name.startswith(METRICS):
        column = name.removeprefix(f"{METRICS}{experiment}_by_") if experiment else name
        by = "" if column == name else f", by {words(re.sub(r'-[0-9a-f]{8}$', '', column))}"  # of a shortened name
        return f"{experiment or name.removeprefix(METRICS)}: metrics by layer{by}"
    if name.startswith(CELLS):
        return f"{name.removeprefix(CELLS)}: effects of the cells of the map, with simultaneous intervals"
    contrast = re.fullmatch(r"contrast_(.+)_vs_(.+)", name)
    if contrast:
        return (
            f"{contrast[1]} less {contrast[2]}, by layer; p (all layers) is corrected for the number of layers. Where "
            "one curve varies by text and the other does not, it is below .05 in up to 10 % of experiments without a "
            "difference"
        )
    of_experiment = name.removesuffix(f"_{experiment}")
    if experiment and of_experiment != name:
        return f"{experiment}: {of_experiment.replace('_', ' ')}"
    return TITLES.get(name) or name.replace("_", " ")


def latex(table: PaperTable, name: str) -> str:
    """A table environment for the package booktabs."""
    aligned = "".join("r" if numeric else "l" for numeric in table.numeric)
    lines = [_latex_row(row) for row in table.rows]
    head = [
        "% \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "  \\centering",
        f"  \\caption{{{_in_latex(table.caption)}}}",
        f"  \\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', name)}}}",
        f"  \\begin{{tabular}}{{{aligned}}}",
        "    \\toprule",
        _latex_row(table.headings),
        "    \\midrule",
    ]
    return "\n".join([*head, *lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def markdown(table: PaperTable) -> str:
    """The caption and a table of Markdown."""
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [_markdown_row(table.headings), f"| {' | '.join(rule)} |", *map(_markdown_row, table.rows)]
    return "\n".join([_in_markdown(table.caption), "", *lines, ""])


def csv_text(table: PaperTable) -> str:
    """Headings and cells as CSV, without the caption."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.headings, *table.rows])
    return text.getvalue()


FORMATS: dict[str, Callable[[PaperTable, str], str]] = {
    "latex": latex,
    "csv": lambda table, name: csv_text(table),
    "markdown": lambda table, name: markdown(table),
}


def _heading(name: str, unit: str) -> str:
    """The heading of a column; `unit` is what the rows of metrics count."""
    return heading("n_clips" if name == "n_pairs" and unit == "clip" else name)


def _column(asked: str, known: list[str], unit: str) -> str:
    """The column of that name or heading; `UserError` with the nearest name where there is none."""
    by_heading = {_heading(name, unit).casefold(): name for name in known}
    found = asked if asked in known else by_heading.get(asked.casefold())
    if found is None:
        close = difflib.get_close_matches(asked[:80], [*known, *by_heading], n=1)
        hint = f"did you mean {escape(close[0])}?" if close else f"it has {listing(known, most=40)}"
        raise UserError(f"--columns: the table has no column {short_repr(asked)}; {hint}", BAD_USAGE)
    return found


def _usual(table: pd.DataFrame) -> list[str]:
    """The columns that a paper shows: of metrics the main ones; limits stand beside their estimate."""
    limits = {limit for name in table for limit in _limits_of(table, name)}
    names = [name for name in table if name not in limits and name not in DETAILS]
    if {"curve", "hand_over_layer"} <= set(table):
        facts = [name for name in COMPARED_FACTS if name in table and table[name].nunique(dropna=False) > 1]
        curve, *others = (name for name in SHOWN_COMPARED if name in table)
        return [curve, *facts, *others]
    if "label_mass_patch_mean" not in names or not {*SHOWN} & {*names}:
        return names
    first = names[: min(names.index(name) for name in SHOWN if name in names)]
    after = list(table)[list(table).index("site") + 1 :] if "site" in table else []  # the swept options
    swept = [name for name in after if name in names and table[name].nunique() > 1]
    return [*first, *swept, *(name for name in SHOWN if name in names)]


def _limits_of(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    own, *shared = [tuple(limit.format(name) for limit in pair) for pair in LIMITS]
    for pair in [own, *(shared if name in ESTIMATES else [])]:
        if set(pair) <= set(table):
            return pair
    return ()


def _cells(table: pd.DataFrame, name: str) -> list[str]:
    limits = _limits_of(table, name)
    if limits:
        rows = table[[name, *limits]]
        form = f".{_places([decimals(*values) for values in rows.dropna().itertuples(index=False)])}f"
        return [_estimate(form, *values) for values in rows.itertuples(index=False)]
    values = table[name]
    if name in P_VALUES:
        return ["" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.{3 if p < 0.1 else 2}f}" for p in values]
    if pd.api.types.is_float_dtype(values) and not (values.dropna() % 1 == 0).all():
        return ["" if pd.isna(value) else number(value, ".2f") for value in values]
    return ["" if pd.isna(value) else _whole(value) for value in values]


def _whole(value: Any) -> str:
    if isinstance(value, float):
        return number(value, ".0f")
    if value in HEADINGS:
        return HEADINGS[value]
    return for_xml(str(value)).removeprefix("'") if isinstance(value, str) else str(value).replace("-", "−")


def _places(needed: Sequence[int]) -> int:
    """The decimals of a column: as many as any row needs, but at most one more than the middle row."""
    return min(max(needed), median_high(needed) + 1) if needed else 2


def _estimate(form: str, value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    if pd.isna(low) or pd.isna(high):
        return number(value, form)
    return f"{number(value, form)} [{number(low, form)}, {number(high, form)}]"


def _latex_row(cells: Sequence[str]) -> str:
    first, *others = map(_in_latex, cells)
    # After the end of a row, LaTeX takes a star or a bracket for an argument.
    first = f"{{}}{first}" if first.startswith(("*", "[")) else first
    return f"    {' & '.join([first, *others])} \\\\"


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_in_markdown, cells))} |"


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<\[\]$])", r"\\\1", " ".join(text.split()))
