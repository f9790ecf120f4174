"""Figures are declarations that hold what their title, legend and axes say."""

import json

import pandas as pd
import pytest

from voicepatch.figures import curves, figure_style, maps
from voicepatch.figures.controls import control_curves
from voicepatch.figures.curves import A_RATE, B_RATE, NO_UPPER_BOUND
from voicepatch.figures.figure_style import save, spec_of
from voicepatch.figures.line_labels import FONT_SIZE, LINE_HEIGHT, MOST_LABELS, apart

METRICS = pd.DataFrame(
    {
        "layer": [0, 1, 2],
        "n_pairs": [3, 3, 3],
        "eligible_count": [2, 2, 2],
        "flip_to_target_rate": [0.9, 0.5, 0.1],
        "flip_to_target_rate_eligible": [0.88, 0.4, 0.0],
        "flip_from_base_rate": [0.8, 0.4, 0.0],
        "donor_is_target_rate": [0.95] * 3,
        "base_is_target_rate": [0.1] * 3,
        "delta_logit_target_mean": [3.0, 1.0, 0.0],
        "delta_logit_target_q25": [2.0, 0.5, 0.0],
        "delta_logit_target_q75": [4.0, 1.5, 0.0],
        "patch_alpha": [1.0] * 3,
    }
)
DOSES = pd.concat([METRICS, METRICS.assign(patch_alpha=0.5)])
CONTROLS = curves.series(METRICS, "flip_to_target_rate", "patch", "n_pairs")
DEPTHS = pd.concat([CONTROLS.assign(series="flip_to_target_rate"), curves.references(METRICS)])


def draw_delta_logit(metrics, title, subtitle):
    return curves.metric_curve(metrics, curves.DELTA_LOGIT, title, subtitle)


FIGURES_OF_RATES = {
    "flip rates": lambda metrics: curves.flip_rate_curve(metrics, "title", []),
    "sweep": lambda metrics: curves.swept_curves(
        pd.concat([metrics, metrics.assign(patch_alpha=0.5)]), ["patch_alpha"], "flip_to_target_rate", "title", []
    ),
    "dose response": lambda metrics: curves.dose_response(metrics, "flip_to_target_rate", "title", []),
    "relative depth": lambda metrics: curves.depth_curves(
        DEPTHS.assign(depth=0.5, run="r"), curves.TO_TARGET, "title", []
    ),
}


def datasets(chart):
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def titles(part):
    """Every axis title in a specification."""
    if isinstance(part, list):
        return {title for item in part for title in titles(item)}
    if not isinstance(part, dict):
        return set()
    here = {part["x"]["title"]} if "title" in part.get("x", {}) else set()
    return here | {title for key, item in part.items() if key != "datasets" for title in titles(item)}


def test_the_flip_rate_figure_holds_every_rate_in_words_eligible_pairs_first():
    rows = datasets(curves.flip_rate_curve(METRICS, "title", ["n = 3"], "B's label"))
    rates = {(row["series"], row["layer"]): row["value"] for row in rows if "series" in row}
    names = {
        "flip_to_target_rate_eligible": "eligible pairs that answer with B's label",
        "flip_to_target_rate": "all pairs that answer with B's label",
        "flip_from_base_rate": "pairs whose answer changes",
    }
    assert list(curves.FLIP_STYLES) == list(names)
    for column, name in names.items():
        assert [rates[name, layer] for layer in (0, 1, 2)] == METRICS[column].tolist()


def test_both_kinds_are_compared_by_their_eligible_pairs():
    other = METRICS.assign(flip_to_target_rate_eligible=[0.5, 0.25, 0.0])
    rows = datasets(curves.kind_curves({"prosody": METRICS, "semantic": other}, "title", []))
    rates = {(row["series"], row["layer"]): row["value"] for row in rows if "series" in row}
    assert [rates[curves.KIND_LINES["prosody"], layer] for layer in (0, 1, 2)] == [0.88, 0.4, 0.0]
    assert [rates[curves.KIND_LINES["semantic"], layer] for layer in (0, 1, 2)] == [0.5, 0.25, 0.0]


@pytest.mark.parametrize("figure", FIGURES_OF_RATES)
def test_every_figure_of_rates_has_both_reference_lines(figure):
    rates = {row["series"]: row["value"] for row in datasets(FIGURES_OF_RATES[figure](METRICS)) if "series" in row}
    for name, rate in ((B_RATE, 0.95), (A_RATE, 0.1)):
        mine = [value for series, value in rates.items() if series.endswith(name)]
        assert mine and set(mine) == {rate}, name


@pytest.mark.parametrize("figure", ["flip rates", "sweep", "dose response"])
def test_a_curve_above_the_donors_own_rate_is_explained_and_no_other(figure):
    for donor, explained in ((0.95, False), (0.85, True)):
        chart = FIGURES_OF_RATES[figure](METRICS.assign(donor_is_target_rate=donor))
        assert (NO_UPPER_BOUND in "".join(chart.to_dict()["usermeta"]["notes"])) == explained


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (None, "output of the block (residual stream)"),
        ("output", "output of the block (residual stream)"),
        ("mlp.output", "output of the MLP"),
        ("self_attn.output + mlp.output", "output of the attention and output of the MLP"),
        ("self_attn.o_proj.input", "input of o_proj (a head's slice)"),
        ("mlp.gate_proj.output", "mlp.gate_proj.output"),
    ],
)
@pytest.mark.parametrize("draw", [curves.flip_rate_curve, draw_delta_logit])
def test_the_axis_of_layers_names_the_site_that_was_written(draw, site, words):
    metrics = METRICS if site is None else METRICS.assign(site=site)
    assert titles(draw(metrics, "title", []).to_dict()) == {f"patched layer: {words}"}


@pytest.mark.parametrize("draw", [curves.flip_rate_curve, draw_delta_logit])
@pytest.mark.parametrize("metrics", [METRICS, METRICS[:1]], ids=["three layers", "one layer"])
def test_figures_become_png_files_at_print_resolution(tmp_path, draw, metrics):
    path = tmp_path / "figure.png"
    save(draw(metrics, "title", ["n = 3 pairs"]), tmp_path / "figure")
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and int.from_bytes(header[16:20]) > 1000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figure.png", "figure.svg", "figure.txt"]


def test_the_picture_has_a_short_title_and_its_caption_file_all_the_rest(tmp_path):
    title = "Prosody pairs, random: A random clip is the donor."
    chart = draw_delta_logit(METRICS, title, ["n = 3 pairs, 2 of them eligible", "model m, data d"])
    spec = spec_of(chart)
    assert " ".join(spec["title"]["text"]) == "Prosody pairs, random: change of the target's logit by patched layer"
    assert "subtitle" not in spec["title"]
    save(chart, tmp_path / "figure")
    assert "eligible" not in (tmp_path / "figure.svg").read_text()
    assert (tmp_path / "figure.txt").read_text() == (
        "Change of the target's logit by patched layer. Prosody pairs, random: A random clip is the donor. "
        "n = 3 pairs, 2 of them eligible. Model m, data d. "
        "Line: mean of patched − unpatched; light band: middle half of the pairs.\n"
    )


@pytest.mark.parametrize("n_lines", [2, MOST_LABELS, MOST_LABELS + 1])
def test_a_few_lines_are_named_at_their_ends_and_many_in_a_legend(n_lines):
    metrics = pd.concat([METRICS.assign(head=head) for head in range(n_lines)])
    spec = spec_of(curves.swept_curves(metrics, ["head"], "flip_to_target_rate_eligible", "title", []))
    rows = [row for rows in spec["datasets"].values() for row in rows if "place" in row]
    legends = [layer["encoding"]["color"]["legend"] for layer in spec["layer"] if "legend" in str(layer["encoding"])]
    if n_lines > MOST_LABELS:
        assert not rows and any(legends)
        return
    assert [row["text"] for row in rows] == [f"head {head}" for head in range(n_lines)] and not any(legends)
    places = sorted(row["place"] for row in rows)  # all lines end at the same value, and yet no name hides another
    line = FONT_SIZE * LINE_HEIGHT / spec["height"]
    assert all(above - below >= line for below, above in zip(places, places[1:], strict=False))


def test_names_stay_at_the_ends_of_lines_that_are_far_apart():
    assert apart([0.2, 0.8], [0.1, 0.1]) == pytest.approx([0.2, 0.8])
    assert apart([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.45, 0.55])
    assert apart([0.0, 0.01, 1.0], [0.1, 0.1, 0.1]) == pytest.approx([0.05, 0.15, 0.95])


def test_a_map_of_a_sweep_has_a_cell_for_each_layer_and_value_in_the_values_order():
    metrics = pd.concat([METRICS.assign(head=head) for head in (10, 9, 2)])
    chart = maps.swept_heat_map(metrics, ["head"], "flip_to_target_rate", "title", []).to_dict()
    (rows,) = chart["datasets"].values()
    assert {(row["layer"], row["value"]): row["flip_to_target_rate"] for row in rows} == {
        (layer, head): rate for head in (2, 9, 10) for layer, rate in enumerate((0.9, 0.5, 0.1))
    }
    y = chart["layer"][0]["encoding"]["y"]
    assert y["sort"] == [2, 9, 10] and y["title"] == "head"


def test_each_control_has_a_panel_with_the_main_curve_whatever_the_order_of_the_controls():
    other = METRICS.assign(flip_to_target_rate_eligible=0.25, flip_from_base_rate=0.75)
    controls = {
        "random": (other, ["flip_to_target_rate", "flip_from_base_rate"]),
        "self": (other, ["flip_from_base_rate"]),
    }
    chart = control_curves(controls, METRICS, "title", []).to_dict()
    assert chart == control_curves(dict(reversed(controls.items())), METRICS, "title", []).to_dict()
    rows = datasets(control_curves(controls, METRICS, "title", []))
    found = {(row["panel"], row["series"]): row["value"] for row in rows if row["layer"] == 0}
    assert found == {
        ("random", "main experiment: answer is the target"): 0.88,
        ("random", "control: answer is the target"): 0.25,
        ("random", "main experiment: answer changes"): 0.8,
        ("random", "control: answer changes"): 0.75,
        ("self", "main experiment: answer changes"): 0.8,
        ("self", "control: answer changes"): 0.75,
    }


@pytest.mark.parametrize("n_layers", [3, 1])
def test_any_metric_is_drawn_by_layer_with_its_limits(n_layers):
    metrics = METRICS.assign(entropy_mean=[1.5, 1.0, 0.5], entropy_mean_low=0.25, entropy_mean_high=1.75)[:n_layers]
    chart = curves.metric_curve(metrics, "entropy_mean", "title", []).to_dict()
    rows = [row for row in (row for rows in chart["datasets"].values() for row in rows) if "n" in row]
    assert [(row["value"], row["low"], row["high"]) for row in rows] == [
        (value, 0.25, 1.75) for value in (1.5, 1.0, 0.5)[:n_layers]
    ]
    assert chart["usermeta"]["caption"] == "Entropy by patched layer" and '"mean entropy"' in json.dumps(chart)
    swept = pd.concat([metrics.assign(head=head) for head in (0, 1)])
    chart = curves.swept_curves(swept, ["head"], "entropy_mean", "title", []).to_dict()
    assert {row["series"] for rows in chart["datasets"].values() for row in rows if "series" in row} == {
        "head 0",
        "head 1",
    }


def test_each_label_of_a_task_has_a_colour():
    assert len(set(figure_style.label_colours("abcdefghi"))) == 9
    assert len(figure_style.label_colours([str(number) for number in range(30)])) == 30


def test_lines_have_a_contrast_of_3_to_1_with_a_white_page():
    def luminance(colour):
        shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("BLUE", "ORANGE", "GREEN", "PINK", "YELLOW", "SKY", "GREY", "LIGHT_GREY"):
        assert 1.05 / (luminance(getattr(figure_style, name)) + 0.05) >= 3, name


def test_a_thin_line_leads_to_a_name_that_stands_away_from_its_line_and_to_no_other():
    flat = METRICS.assign(flip_from_base_rate=0.0, donor_is_target_rate=0.95)
    spec = spec_of(curves.flip_rate_curve(flat, "title", [], "B's label"))
    rows = {row["series"]: row for rows in spec["datasets"].values() for row in rows if "place" in row}
    away = {name for name, row in rows.items() if row["end"] is not None}
    assert B_RATE not in away and "pairs whose answer changes" in away
    for name in away:
        assert rows[name]["end"] == rows[name]["value"] != rows[name]["middle"]


def test_lines_that_coincide_are_named_in_the_caption():
    flat = METRICS.assign(flip_from_base_rate=METRICS["flip_to_target_rate"])
    notes = [spec_of(curves.flip_rate_curve(one, "title", []))["usermeta"]["notes"] for one in (flat, METRICS)]
    same = "the same line: all pairs that answer with the target = pairs whose answer changes"
    assert same in notes[0] and not any(note.startswith("the same line") for note in notes[1])


def test_the_first_layer_of_a_map_cannot_fall_below_0_where_its_number_would_be_left_out():
    table = pd.DataFrame({"layer": range(10), "head": 0, "n_pairs": 3, "delta_logit_target_mean": 0.1})
    spec = spec_of(maps.swept_heat_map(table, ["head"], "delta_logit_target_mean", "title", []))
    encodings = [layer["encoding"] for layer in spec.get("layer", [spec])]
    assert [each["x"]["scale"]["align"] for each in encodings if each["x"]["field"] == "layer"] == [0] * len(encodings)
