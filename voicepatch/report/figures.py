"""Altair's charts as the page stores them: specifications without title and theme, and each table of data once.

album = Album()
figures = album.take(charts_of(results, "prosody"))
album.datasets                      # the data that the figures' specifications name
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import altair as alt

from voicepatch.figures.captions import notes_of, title_of
from voicepatch.figures.figure_style import spec_of


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite specification without its data, title and theme, which the page gives it."""

    stem: str
    title: str
    notes: list[str]
    spec: dict[str, Any]


class Album:
    """The figures of a page. A figure of several experiments, such as the controls, is stored once."""

    def __init__(self) -> None:
        self.datasets: dict[str, dict[str, Any]] = {}
        self._stems: set[str] = set()

    def take(self, charts: dict[str, alt.TopLevelMixin]) -> list[Figure]:
        """The figures of one experiment that are new to the page."""
        new = {stem: chart for stem, chart in charts.items() if stem not in self._stems}
        self._stems |= set(new)
        return [self._figure(stem, chart) for stem, chart in new.items()]

    def _figure(self, stem: str, chart: alt.TopLevelMixin) -> Figure:
        spec = _numbered(spec_of(chart))
        for dataset, rows in spec.pop("datasets", {}).items():
            self.datasets[dataset] = _packed(rows)
        title, notes = title_of(spec) or stem, notes_of(spec)
        for key in ("title", "usermeta", "config", "background", "$schema"):
            spec.pop(key, None)
        if "mark" in spec or "layer" in spec:
            spec["width"] = "container"
        return Figure(stem, title, notes, spec)


def _numbered(spec: dict[str, Any]) -> dict[str, Any]:
    """The names of views and parameters counted from 1 in each chart. Altair counts on, so pages would differ."""
    names: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return names.setdefault(match[0], f'"{match[1]}_{len(names) + 1}"')

    return json.loads(re.sub(r'"(view|param)_\d+"', renamed, json.dumps(spec)))


def _packed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns; a column of texts as its different texts and their numbers, since most texts repeat."""
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
