"""Names of lines beside their ends, in place of a legend; a thin line leads to a name that had to be moved away.

    alt.layer(lines, *line_labels(tidy, styles, y, [0, 1]))
    with_placed_labels(chart.to_dict())            # the labels moved apart, for the chart's height

The labels are placed for a chart of the usual size, and again when it is drawn at another one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

STYLE = "line-label"  # of the marks that `with_placed_labels` moves
MOST_LABELS = 8  # more lines have a legend
LETTERS, FONT_SIZE, LINE_HEIGHT, HEIGHT = 22, 12, 1.2, 280  # of a chart that says nothing else
LEADER = (5, 18)  # pixels to the right of the chart: where a line to a name begins and ends


def line_labels(
    tidy: pd.DataFrame, styles: Mapping[str, tuple[str, Sequence[int]]], y: Callable[[str], alt.Y], domain: list[float]
) -> list[alt.Chart]:
    """The names of the series of `tidy` in the colours of `styles`, at the height of their last values.

    `tidy` has the columns layer, value and series; `domain` holds the limits of the y axis.
    """
    last = tidy.dropna(subset="value").sort_values("layer", kind="stable").drop_duplicates("series", keep="last")
    rows = last.set_index("series").loc[[name for name in styles if name in set(last["series"])]].reset_index()
    rows = rows[["layer", "series", "value"]].assign(low=domain[0], high=domain[1])
    rows = pd.DataFrame(_placed(rows.to_dict("records"), LETTERS, FONT_SIZE * LINE_HEIGHT / HEIGHT))
    colours = [colour for colour, _ in styles.values()]
    colour = alt.Color("series:N", legend=None).scale(domain=list(styles), range=colours)
    text = {"align": "left", "baseline": "middle", "lineBreak": "\n", "lineHeight": LINE_HEIGHT * FONT_SIZE}
    leader = {"strokeWidth": 0.75, "xOffset": LEADER[0], "x2Offset": LEADER[1]}
    base = alt.Chart(rows).encode(x=alt.value("width"), color=colour)
    return [
        base.mark_rule(**leader).encode(x2=alt.value("width"), y=y("end:Q"), y2="middle:Q"),
        base.mark_text(**text, dx=LEADER[1] + 3, style=STYLE).encode(y=y("place:Q"), text="text:N"),
    ]


def with_placed_labels(spec: dict[str, Any], letters: int = LETTERS, font_size: float = FONT_SIZE) -> dict[str, Any]:
    """The same declaration, where the labels of lines are broken at `letters` and do not overlap."""
    datasets = dict(spec.get("datasets", {}))
    for view, label in _labels_in(spec):
        name = label["data"]["name"]
        height = view.get("height", HEIGHT)
        datasets[name] = _placed(datasets[name], letters, font_size * LINE_HEIGHT / height)
    return spec | ({"datasets": datasets} if datasets else {})


def broken(text: str, letters: int) -> list[str]:
    """A text in lines of at most so many letters, broken at spaces."""
    return re.findall(rf"[^ ].{{0,{letters - 1}}}(?= |$)|[^ ]+", text)


def _labels_in(part: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each view with labels, and the layer that has them."""
    if isinstance(part, list):
        return [found for item in part for found in _labels_in(item)]
    if not isinstance(part, dict):
        return []
    here = [(part, one) for one in part.get("layer", []) if _is_label(one)]
    return here + [
        found for key, item in part.items() if key not in ("datasets", "layer") for found in _labels_in(item)
    ]


def _is_label(layer: dict[str, Any]) -> bool:
    return isinstance(layer.get("mark"), dict) and layer["mark"].get("style") == STYLE


def _placed(rows: list[dict[str, Any]], letters: int, line: float) -> list[dict[str, Any]]:
    """The rows with `text` in lines and `place` apart; `line` is the height of a line as a share of the axis.

    Where the line's end is not beside the text, `end` and `middle` are the heights that a thin line joins; otherwise
    they are None.
    """
    texts = [broken(row["series"].replace("n = ", "n\u00a0=\u00a0"), letters) for row in rows]
    heights = [line * (len(text) + 0.15) for text in texts]
    ends = [(row["value"] - row["low"]) / (row["high"] - row["low"]) for row in rows]
    found = []
    for row, text, end, place in zip(rows, texts, ends, apart(ends, heights), strict=True):
        first = place + line * (len(text) - 1) / 2  # Vega draws further lines below the first
        reach = row["high"] - row["low"]
        joined = (row["value"], row["low"] + place * reach) if abs(place - end) > line * len(text) / 2 else (None, None)
        moved = {"place": row["low"] + first * reach, "end": joined[0], "middle": joined[1]}
        found.append(row | {"text": "\n".join(text)} | moved)
    return found


def apart(ends: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The middles of blocks of these heights that do not overlap, in the order of `ends` and as near to them.

    Blocks that touch are moved together: their group stands where its blocks' mean distance from their ends is 0. All
    stay between 0 and 1 if there is room.
    """
    order = sorted(range(len(ends)), key=lambda index: ends[index])
    groups: list[tuple[list[int], float]] = []  # the blocks of a group from below, and its lower edge

    def lower_edge(members: list[int]) -> float:
        below, wanted = 0.0, 0.0
        for member in members:
            wanted += ends[member] - below - heights[member] / 2
            below += heights[member]
        return max(0.0, min(wanted / len(members), 1.0 - below))

    for index in order:
        members, edge = [index], lower_edge([index])
        while groups and groups[-1][1] + sum(heights[member] for member in groups[-1][0]) > edge:
            members = groups.pop()[0] + members
            edge = lower_edge(members)
        groups.append((members, edge))
    places = [0.0] * len(ends)
    for members, edge in groups:
        for member in members:
            places[member] = edge + heights[member] / 2
            edge += heights[member]
    return places
