"""A figure for a paper: no title, letters that are readable at the width of a column, and thin lines.

    spec = renamed(spec_of(chart), {"prosody": "Voice"})
    picture(for_paper(spec, Size(width=238), "sans-serif"), "pdf", 238)        # bytes; points, 72 of which are an inch

One pixel is one point. The size of the panels is found by drawing, since it depends on that of axes, legends and names.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import vl_convert

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.figures.figure_style import svg_of
from voicepatch.figures.line_labels import LINE_HEIGHT, broken, with_placed_labels
from voicepatch.text import listing, short_repr

FONT_SIZE = 8  # points
SCALE = FONT_SIZE / 12  # the letters of a run's figures have 12 pixels
LETTER = 0.52 * FONT_SIZE  # mean width
NARROWEST, LOWEST = 60, 30  # of a panel, in points
NARROWEST_OF_ROW = 40  # of a panel that is to stay in the row of the others
ATTEMPTS, ROOM = 6, 40  # to reach the size; points for an axis and its title
INCH, PIXELS_PER_INCH = 72, 300
LENGTHS = (
    "strokeWidth",
    "height",
    "width",
    "spacing",
    "gradientLength",
    "symbolStrokeWidth",
    "dx",
    "xOffset",
    "x2Offset",
    "padding",
    "thickness",
)
AREAS = ("size", "symbolSize")
FORMATS = ("pdf", "svg", "png")
SIZE = r'width="([\d.]+)" height="([\d.]+)"'  # of an SVG
GENERIC_FONTS = ("sans-serif", "serif", "monospace")


@dataclass(frozen=True)
class Size:
    """The size of a picture in points; a height of 0 follows from the rows of the figure."""

    width: float
    height: float = 0


def for_paper(spec: dict[str, Any], size: Size, font: str) -> dict[str, Any]:
    """A declaration without title, of this size, with letters of 8 pt; `UserError` where the size is too small."""
    spec = {key: value for key, value in spec.items() if key not in ("title", "usermeta", "config")}
    spec = _scaled(spec) | {"config": _config(font, size.width)}
    most = max(_columns(_one_by_one(spec)), 1)
    has_rows = any("column" in part.get("facet", {}) for part in [spec, *spec.get("vconcat", [])])
    for columns in range(most, 0, -1):
        drawn, panel = _fitted(_wrapped(_one_by_one(spec), columns), size)
        narrowest = NARROWEST_OF_ROW if has_rows and columns == most else NARROWEST
        if panel >= narrowest:
            break
    if panel < narrowest:
        least = (size.width + narrowest - panel) / INCH + 0.05
        raise UserError(f"--width: the panels would be too narrow; pass {least:.1f}in or more", BAD_USAGE)
    return drawn


def picture(spec: dict[str, Any], form: str, width: float) -> bytes:
    """The picture as "pdf", "svg" or "png" (300 pixels an inch), this many points wide."""
    svg, unit = svg_of(spec), "pt" if form == "svg" else ""
    drawn_width, drawn_height = size_of(svg)
    height = drawn_height * width / drawn_width  # the two widths differ by Vega's rounding alone
    size = f'width="{width:g}{unit}" height="{height:g}{unit}"'
    svg = re.sub(SIZE, size, svg, count=1)
    if form == "pdf":
        return vl_convert.svg_to_pdf(svg)
    return vl_convert.svg_to_png(svg, ppi=PIXELS_PER_INCH) if form == "png" else svg.encode()


def size_of(svg: str) -> tuple[float, float]:
    """Width and height of a picture."""
    width, height = re.search(SIZE, svg).groups()
    return float(width), float(height)


def require_font(font: str) -> None:
    """`UserError` for a font that is not installed: its letters would be missing."""
    probe = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text font-family="{font}">a</text></svg>'
    if re.fullmatch(r"[\w .-]+", font) and b"/BaseFont" in vl_convert.svg_to_pdf(probe):
        return
    try:
        found = subprocess.run(
            ["fc-list", ":", "family"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # no fontconfig here
        found = ""
    installed = sorted({line.split(",")[0].strip() for line in found.splitlines() if line.strip()})
    known = listing([*GENERIC_FONTS, *installed], most=20)
    raise UserError(f"--font {short_repr(font)}: is not installed; use one of {known}", BAD_USAGE)


def names_in(spec: dict[str, Any]) -> list[str]:
    """The names of series, panels and axes, each once."""
    parts = {key: item for key, item in spec.items() if key not in ("title", "usermeta")}
    return list(dict.fromkeys(name for name in _names(parts, spec.get("datasets", {})) if name))


COUNT = re.compile(r"(, n = .+|\s\(\d[^()]*\))$")  # at the end of a name, whatever the name is


def renamed(spec: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """The declaration with other names; a key of `labels` is a name, or its first words where one name begins so."""
    known = {name.replace("\u00a0", " "): name for name in names_in(spec)}
    named = {_named(known, old): text for old, text in labels.items()}
    new = {name: text + (found[0] if (found := COUNT.search(name)) else "") for name, text in named.items()}
    return _replaced(spec, new) if new else spec


def _named(known: Mapping[str, str], old: str) -> str:
    found = [old] if old in known else [name for name in known if re.match(rf"{re.escape(old)}(?!\w)", name)]
    if len(found) == 1:
        return known[found[0]]
    why = "is the beginning of several names" if found else "is no name in the figure"
    names = ", ".join(map(short_repr, found or known))
    raise UserError(f"--label {short_repr(old)}: {why}; it has {names}", BAD_USAGE)


def _names(part: Any, datasets: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _names(item, datasets)
    if not isinstance(part, dict):
        return
    title, scale = part.get("title"), part.get("scale")
    yield from [title] if isinstance(title, str) else []
    if isinstance(scale, dict) and isinstance(scale.get("domain"), list):
        yield from (value for value in scale["domain"] if isinstance(value, str))
    if isinstance(part.get("facet"), dict):
        yield from (str(value) for value in _panels(part, datasets))
    for key, item in part.items():
        if key not in ("datasets", "config", "tooltip"):
            yield from _names(item, datasets)


def _replaced(part: Any, new: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        kept = {key: part[key] for key in ("field", "type") if key in part}
        compared = {key: _compared(part[key], new) for key in ("filter", "test") if isinstance(part.get(key), str)}
        return {key: _replaced(item, new) for key, item in part.items()} | kept | compared
    if isinstance(part, list):
        return [_replaced(item, new) for item in part]
    return new.get(part, part) if isinstance(part, str) else part


def _compared(expression: str, new: Mapping[str, str]) -> str:
    """An expression of Vega, such as a filter, in which names stand in quotes."""
    for old, text in new.items():
        for quoted in (f"'{old}'", f'"{old}"'):
            expression = expression.replace(quoted, json.dumps(text))
    return expression


def _scaled(part: Any, key: str = "") -> Any:
    """Lengths of a run's figure as those of a paper; letters all have one size."""
    if isinstance(part, dict):
        return {name: item if name == "datasets" else _scaled(item, name) for name, item in part.items()}
    if isinstance(part, list):
        return [_scaled(item, "strokeDash" if isinstance(item, list) and key == "range" else key) for item in part]
    if not isinstance(part, (int, float)) or isinstance(part, bool):
        return part
    if key.lower().endswith("fontsize"):
        return FONT_SIZE
    if key == "lineHeight":
        return FONT_SIZE * LINE_HEIGHT
    if key in LENGTHS or key == "strokeDash":
        return part * SCALE
    return part * SCALE**2 if key in AREAS else 0 if key in ("labelLimit", "titleLimit") else part


def _config(font: str, width: float) -> dict[str, Any]:
    letters = {"labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal"}
    legend = {"orient": "bottom", "columns": 2 if width > 5 * INCH else 1, "labelLimit": 0, "titleLimit": 0}
    below = {"layout": {"bottom": {"direction": "vertical", "anchor": "start"}}}  # several legends
    return {
        "font": font,
        "axis": letters | {"gridOpacity": 0.5, "tickSize": 3, "titlePadding": 3},
        "axisQuantitative": {"labelOverlap": True},
        "legend": letters | legend | below | {"symbolSize": 90, "symbolStrokeWidth": 1.3, "rowPadding": 1, "offset": 6},
        "header": letters,
        "title": {"fontSize": FONT_SIZE, "fontWeight": "normal"},
        "text": {"fontSize": FONT_SIZE},
        "view": {"stroke": None},
        "padding": 1,
    }


def _one_by_one(spec: dict[str, Any]) -> dict[str, Any]:
    """Panels in a row as panels that can be wrapped."""
    if "vconcat" in spec:
        return spec | {"vconcat": [_one_by_one(view) for view in spec["vconcat"]]}
    if "hconcat" in spec:
        kept = {key: value for key, value in spec.items() if key != "hconcat"}
        return kept | {"concat": [_one_by_one(view) for view in spec["hconcat"]], "columns": len(spec["hconcat"])}
    if "column" in spec.get("facet", {}):
        return spec | {"facet": spec["facet"]["column"], "columns": 99}
    return spec


def _wrapped(spec: dict[str, Any], columns: int) -> dict[str, Any]:
    """At most so many panels beside each other."""
    spec = spec | {"columns": min(spec["columns"], columns)} if "columns" in spec else spec
    for key in ("vconcat", "concat"):
        if key in spec:
            spec = spec | {key: [_wrapped(view, columns) for view in spec[key]]}
    return spec


def _panels(spec: dict[str, Any], datasets: Mapping[str, Any]) -> list[Any]:
    """The values for each of which a facet has a panel."""
    rows = datasets.get(spec.get("data", spec["spec"].get("data", {})).get("name", ""), [])
    facet = spec["facet"].get("column", spec["facet"])
    return list(dict.fromkeys(row.get(facet.get("field")) for row in rows))


def _columns(spec: dict[str, Any], datasets: Mapping[str, Any] | None = None) -> int:
    """The number of panels beside each other."""
    datasets = spec.get("datasets", {}) if datasets is None else datasets
    if "vconcat" in spec:
        return max(_columns(view, datasets) for view in spec["vconcat"])
    if "concat" in spec:
        return min(spec["columns"], len(spec["concat"]))
    return min(spec.get("columns", 99), max(1, len(_panels(spec, datasets)))) if "facet" in spec else 1


def _rows(spec: dict[str, Any], datasets: Mapping[str, Any] | None = None) -> int:
    """The number of panels one above the other."""
    datasets = spec.get("datasets", {}) if datasets is None else datasets
    if "vconcat" in spec:
        return sum(_rows(view, datasets) for view in spec["vconcat"])
    number = len(spec["concat"]) if "concat" in spec else len(_panels(spec, datasets)) if "facet" in spec else 1
    return -(-number // _columns(spec, datasets))


def _fitted(spec: dict[str, Any], size: Size) -> tuple[dict[str, Any], float]:
    """The declaration with panels so large that the picture has this size, and the width of a panel."""
    columns, rows = _columns(spec), _rows(spec)
    width, higher = (size.width - ROOM) / columns, 0.0
    grows, before = float(columns), None  # the picture's growth with a panel's, which other layouts change
    for _ in range(ATTEMPTS):
        drawn = _sized(spec, width, higher, size.width)
        drawn = with_placed_labels(drawn, max(10, int(0.3 * size.width / LETTER)), FONT_SIZE)
        found = size_of(svg_of(drawn))
        if before and width != before[0] and found[0] != before[1]:
            grows = max(0.5, (found[0] - before[1]) / (width - before[0]))
        before, wider = (width, found[0]), size.width - found[0]
        missing = size.height - found[1] if size.height else 0
        if (abs(wider) <= 0.5 and abs(missing) <= 0.5) or width < 1:
            break
        width, higher = width + wider / grows, higher + missing / rows
    lowest = min(view["height"] for view in _views(drawn))
    if size.height and lowest < LOWEST:
        least = (size.height + rows * (LOWEST - lowest)) / INCH + 0.05
        raise UserError(f"--height: the panels would be too low; pass {least:.1f}in or more", BAD_USAGE)
    return drawn, width


def _sized(spec: dict[str, Any], width: float, higher: float, whole: float) -> dict[str, Any]:
    """Every panel with this width, and higher; titles of axes and legends in lines that fit."""
    if "mark" in spec or "layer" in spec:
        height = spec.get("height")
        height = max((height if isinstance(height, (int, float)) else 200 * SCALE) + higher, 1)
        return _broken(spec, int(max(width, 60) / LETTER), int(max(height, 60) / LETTER), int(whole / LETTER)) | {
            "width": max(width, 1),
            "height": height,
        }
    for key in ("vconcat", "concat"):
        if key in spec:
            return spec | {key: [_sized(view, width, higher, whole) for view in spec[key]]}
    return spec | {"spec": _sized(spec["spec"], width, higher, whole)}


def _views(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "mark" in spec or "layer" in spec:
        yield spec
    for view in [*spec.get("vconcat", []), *spec.get("concat", []), *([spec["spec"]] if "spec" in spec else [])]:
        yield from _views(view)


def _broken(part: Any, across: int, along: int, whole: int, key: str = "") -> Any:
    if isinstance(part, list):
        return [_broken(item, across, along, whole, key) for item in part]
    if not isinstance(part, dict):
        return part
    part = {
        name: item if name == "datasets" else _broken(item, across, along, whole, name) for name, item in part.items()
    }
    letters = {"x": across, "y": along, "color": whole, "strokeDash": whole}.get(key)
    if letters and isinstance(part.get("title"), str):
        part = part | {"title": broken(part["title"], letters)}
    if (
        key in ("color", "strokeDash")
        and part.get("type") in ("nominal", "ordinal")
        and part.get("legend", {}) is not None
    ):
        domain = (part.get("scale") or {}).get("domain") or ["0000"]
        longest = max(len(str(name)) for name in domain) + 7  # with the symbol
        part = part | {"legend": part.get("legend", {}) | {"columns": max(1, whole // longest)}}
    return part
