"""What all figures share: colours, axes, titles, and how they are saved.

save(figure(chart, title, notes, "Flip rates by patched layer"), Path("flip_rate_curve_prosody"))
"""

import mmap
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from voicepatch.analysis.sites import NOTHING, site_name, sites_of
from voicepatch.figures.captions import caption_of, short_title
from voicepatch.figures.line_labels import with_placed_labels
from voicepatch.files import write_whole
from voicepatch.text import for_xml

# Okabe and Ito's colours, which colour-blind readers tell apart, their yellow and sky darker: a line has a contrast of
# 3 to 1 with a white page (WCAG 2.2, 1.4.11). The same thing has the same one in every figure.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#BF8400", "#3A96CE"
BROWN, PURPLE = "#8C6D31", "#7B4FA3"
PALETTE = (ORANGE, GREEN, PINK, YELLOW, SKY, BROWN, PURPLE, "#7F7F7F")
GREY, LIGHT_GREY = "#595959", "#8C8C8C"
LABEL_COLOURS = ("#8A929A", "#E69F00", BLUE, ORANGE, GREEN, PINK, "#56B4E9", PURPLE, BROWN)
SOLID = [1, 0]
DASHES = ([6, 3], [2, 2], [6, 2, 2, 2], [8, 3], [4, 4], [3, 1], [1, 2])
WIDTH, HEIGHT = 460, 280
# `align` of bands whose labels are chosen: centred, the first may be at -1e-14, and Vega drops its label.
FROM_THE_START = 0
PIXELS_PER_INCH = 200
V8_ADDRESSES = 66 << 30  # bytes: what V8 reserves, 64 GiB, and room for its heap
LEGEND = dict(
    labelFontSize=12, titleFontSize=12, titleFontWeight="normal", symbolSize=200, symbolStrokeWidth=2, labelLimit=400
)


def site_axis_title(table: pd.DataFrame) -> str:
    """The title of an axis of layers, with the site that was written there."""
    return "layer" if sites_of(table) == [NOTHING] else f"patched layer: {site_name(table)}"


def layer_axis(table: pd.DataFrame) -> alt.X:
    """Layers as numbers, with about twelve labels."""
    low, high = int(table["layer"].min()), int(table["layer"].max())
    axis = alt.Axis(values=list(range(low, high + 1, max(1, (high - low + 1) // 12))), format="d", grid=False)
    return alt.X("layer:Q", title=site_axis_title(table), axis=axis).scale(
        domain=[low, max(high, low + 1)], nice=False, padding=8
    )


def layer_columns(table: pd.DataFrame) -> alt.X:
    """Layers as columns of a map."""
    layers = [int(layer) for layer in sorted(table["layer"].unique())]
    shown = layers[:: max(1, len(layers) // 12)]
    return alt.X("layer:O", title=site_axis_title(table)).axis(values=shown, labelAngle=0).scale(align=FROM_THE_START)


def label_colours(labels: Sequence[str]) -> list[str]:
    """A colour for each label of a task; after nine labels they repeat."""
    return [LABEL_COLOURS[number % len(LABEL_COLOURS)] for number in range(len(labels))]


def is_rate(column: str) -> bool:
    """Whether a column of the metrics is a share between 0 and 1."""
    return column.endswith(("_rate", "_rate_eligible"))


def share(field: str, title: str) -> alt.Y:
    """A share between 0 and 1, in percent."""
    return alt.Y(field, title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))


def same_tops(title: str) -> alt.Chart:
    """An invisible point at 100 % in each panel, since a curve that reaches there raises its panel's title."""
    top = alt.Chart().transform_aggregate(n="count()").transform_calculate(top="1")
    return top.mark_point(opacity=0, size=200).encode(y=share("top:Q", title))


def figure(
    chart: alt.LayerChart, title: str, notes: Sequence[str], caption: str = "", legend_columns: int = 0
) -> alt.LayerChart:
    """A chart of the usual size with its title and notes; with columns, the legend is below it."""
    legend = {"orient": "bottom", "columns": legend_columns} if legend_columns else {}
    return styled(chart, title, notes, caption, {"width": WIDTH, "height": HEIGHT}, **legend)


def styled(
    chart: alt.TopLevelMixin,
    title: str,
    notes: Sequence[str],
    caption: str = "",
    size: Mapping[str, int] | None = None,
    **legend: Any,
) -> alt.TopLevelMixin:
    """A chart with fonts, legend and a short title, and a size in pixels.

    `title` is a sentence on the experiment, `caption` a few words on what the figure shows, and `notes` what a reader
    must know of it. The picture has a short title alone; `figures.captions` makes a caption of all three.
    """
    heading = alt.TitleParams(_lines(short_title(title, caption), 66), anchor="start", offset=10)
    config = alt.Config(
        font="sans-serif",
        axis=alt.AxisConfig(labelFontSize=12, titleFontSize=13, titleFontWeight="normal", gridOpacity=0.5),
        legend=alt.LegendConfig(**LEGEND, **legend),
        title=alt.TitleConfig(fontSize=14),
        text=alt.MarkConfig(fontSize=12),
        header=alt.HeaderConfig(labelFontSize=12, titleFontSize=12, titleFontWeight="normal"),
        view=alt.ViewConfig(stroke=None),
    )
    # One call, since each copies the whole chart.
    about = {"title": title, "caption": caption, "notes": list(notes)}
    return chart.properties(title=heading, background="white", usermeta=about, config=config, **(size or {}))


def _lines(text: str, letters: int) -> list[str]:
    """Broken at spaces alone, so that the lines joined by spaces are the text again."""
    return re.findall(rf"\S.{{0,{letters - 1}}}(?= |$)|\S+", text)


def spec_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The declaration that Vega-Lite draws, with the labels of lines placed and all of its data.

    In all of its texts, characters that an SVG cannot hold are replaced.
    """
    with alt.data_transformers.enable("default", max_rows=None):
        return with_placed_labels(_for_xml(chart.to_dict(validate=False)))


def _for_xml(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _for_xml(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_for_xml(value) for value in part]
    return for_xml(part) if isinstance(part, str) else part


def save(chart: alt.TopLevelMixin, path: Path) -> list[Path]:
    """Write `path`.png at print resolution, `path`.svg, and the caption as `path`.txt; gives the three paths.

    Each is written as a whole or not at all; there are no pictures where `why_not_drawn` gives a reason.
    """
    spec = spec_of(chart)
    contents: dict[str, bytes | str] = {"txt": caption_of(spec) + "\n"}
    if not why_not_drawn():
        contents["svg"] = svg = svg_of(spec)
        contents["png"] = vl_convert.svg_to_png(svg, ppi=PIXELS_PER_INCH)
    return [write_whole(path.with_name(f"{path.name}.{form}"), content) for form, content in contents.items()]


@cache
def why_not_drawn() -> str | None:
    """Why figures cannot be drawn in this process; None where they can.

    V8, in which Vega runs, reserves 64 GiB of addresses when it starts, and ends the whole process where it cannot.
    So this function tries to reserve them first: the process, its container or the machine may have a limit.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows, which has no such limit
        return None
    try:
        mmap.mmap(-1, V8_ADDRESSES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON, prot=0).close()
    except OSError:
        return (
            f"figures are not written as PNG and SVG: this needs {V8_ADDRESSES >> 30} GiB of addresses, more than the "
            "process may have (use ulimit -v unlimited); report.html shows the figures nevertheless"
        )
    return None


def svg_of(spec: dict[str, Any]) -> str:
    """The picture of a declaration; the same for the same one."""
    return _renumbered(vl_convert.vegalite_to_svg(spec))


def _renumbered(svg: str) -> str:
    """The SVG with its ids counted from 1: Vega counts on from figure to figure, but a chart should give one file."""
    ids: dict[str, str] = {}
    return re.sub(r"\b(gradient_|clip)\d+\b", lambda m: ids.setdefault(m[0], f"{m[1]}{len(ids) + 1}"), svg)
