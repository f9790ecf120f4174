"""Altair's charts as the page keeps them: specifications without title and theme, and each table of data once.

album = Album()
figures = album.take(charts_of(run, config, "prosody"), "prosody")
album.datasets                      # what the figures' specifications name as their data
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import altair as alt

from analysis.figure_style import spec_of

# The page says which experiment it is, so that a heading says only what the figure shows; others keep their title.
HEADINGS = {
    "flip_rate_curve": "Flip rates by patched layer",
    "delta_logit_curve": "delta_logit_target by patched layer",
    "recovery_curve": "Normalised recovery by patched layer",
    "pair_heat_map": "Each pair by patched layer",
    "label_matrix": "flip_to_target_rate from label to label",
    "controls": "The main experiment and its controls",
    "contrast_prosody_vs": "Prosody − semantic by layer",
    "lens": "Logit lens: which label leads by layer",
    "timeline": "Map in time",
    "dose_response": "Dose response: flip rate by alpha",
}


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite specification without its data, title and theme, which the page gives it."""

    stem: str
    title: str
    subtitle: list[str]
    spec: dict[str, Any]


class Album:
    """The figures of a page. What several experiments draw, such as the controls, is kept once."""

    def __init__(self):
        self.datasets: dict[str, dict[str, Any]] = {}
        self._stems: set[str] = set()

    def take(self, charts: dict[str, alt.TopLevelMixin], name: str) -> list[Figure]:
        """The figures of experiment `name` that are new to the page."""
        new = {stem: chart for stem, chart in charts.items() if stem not in self._stems}
        self._stems |= set(new)
        return [self._figure(stem, chart, name) for stem, chart in new.items()]

    def _figure(self, stem: str, chart: alt.TopLevelMixin, name: str) -> Figure:
        with alt.data_transformers.enable("default", max_rows=None):
            spec = _numbered(spec_of(chart))
        for dataset, rows in spec.pop("datasets", {}).items():
            self.datasets[dataset] = _packed(rows)
        heading = spec.pop("title", stem)
        heading = heading if isinstance(heading, dict) else {"text": heading}
        for key in ("config", "background", "$schema"):
            spec.pop(key, None)
        if "mark" in spec or "layer" in spec:
            spec["width"] = "container"
        what = stem.removesuffix(f"_{name}").removesuffix("_prosody").removesuffix("_semantic")
        title = HEADINGS.get(what) or " ".join(_lines(heading["text"]))
        return Figure(stem, title, _whole(_lines(heading.get("subtitle", []))), spec)


def _numbered(spec: dict[str, Any]) -> dict[str, Any]:
    """Altair counts views and parameters through the process; from 1 in each chart, the page is always the same."""
    names: dict[str, str] = {}

    def again(match: re.Match[str]) -> str:
        return names.setdefault(match[0], f'"{match[1]}_{len(names) + 1}"')

    return json.loads(re.sub(r'"(view|param)_\d+"', again, json.dumps(spec)))


def _packed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns; a column of texts as its different texts and their numbers, since most repeat."""
    columns: dict[str, Any] = {}
    for key in rows[0] if rows else ():
        values = [_short(row[key]) for row in rows]
        if all(isinstance(value, str) for value in values):
            texts = list(dict.fromkeys(values))
            number = {text: index for index, text in enumerate(texts)}
            columns[key] = {"texts": texts, "numbers": [number[value] for value in values]}
        else:
            columns[key] = values
    return columns


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _whole(parts: list[str]) -> list[str]:
    """Lines that a picture breaks are whole on the page: a part that goes on ends in a space."""
    return re.sub(r" \n", " ", "\n".join(parts)).split("\n") if parts else []


def _lines(text: Any) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
