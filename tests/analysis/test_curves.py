"""Figures are declarations that hold what their title, legend and axes say."""

import json

import pandas as pd
import pytest

from voicepatch.figures import curves, figure_style, maps
from voicepatch.figures.curves import A_RATE, B_RATE, NO_UPPER_BOUND
from voicepatch.figures.figure_style import save

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
    "controls": lambda metrics: curves.control_curves(CONTROLS, metrics, "title", []),
    "both kinds": lambda metrics: curves.kind_curves({"prosody": metrics, "semantic": metrics}, "title", []),
    "sweep": lambda metrics: curves.swept_curves(
        pd.concat([metrics, metrics.assign(patch_alpha=0.5)]), ["patch_alpha"], "flip_to_target_rate", "title", []
    ),
    "dose response": lambda metrics: curves.dose_response(metrics, "flip_to_target_rate", "title", []),
    "relative depth": lambda metrics: curves.depth_curves(DEPTHS.assign(depth=0.5, run="r"), "title", []),
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


def test_the_flip_rate_figure_holds_every_rate_under_the_name_of_its_column():
    rows = datasets(curves.flip_rate_curve(METRICS, "title", ["n = 3"]))
    rates = {(row["series"], row["layer"]): row["value"] for row in rows if "series" in row}
    for column in curves.FLIP_STYLES:
        assert [rates[column, layer] for layer in (0, 1, 2)] == METRICS[column].tolist()


@pytest.mark.parametrize("figure", FIGURES_OF_RATES)
def test_every_figure_of_rates_has_both_reference_lines(figure):
    rates = {row["series"]: row["value"] for row in datasets(FIGURES_OF_RATES[figure](METRICS)) if "series" in row}
    for name, rate in ((B_RATE, 0.95), (A_RATE, 0.1)):
        mine = [value for series, value in rates.items() if series.endswith(name)]
        assert mine and set(mine) == {rate}, name


@pytest.mark.parametrize("figure", ["flip rates", "controls", "both kinds", "sweep", "dose response"])
def test_a_curve_above_the_donors_own_rate_is_explained_and_no_other(figure):
    for donor, explained in ((0.95, False), (0.85, True)):
        chart = FIGURES_OF_RATES[figure](METRICS.assign(donor_is_target_rate=donor))
        assert (NO_UPPER_BOUND in "".join(chart.to_dict()["title"].get("subtitle", []))) == explained


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
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


def test_titles_say_what_n_is_and_long_ones_are_broken_without_losing_a_word():
    long = " ".join(["B's stream over the span is written into A's run"] * 4)
    title = draw_delta_logit(METRICS, long, ["n = 3 pairs, 2 of them eligible"]).to_dict()["title"]
    assert " ".join(title["text"]) == long and max(map(len, title["text"])) <= 66
    assert title["subtitle"][0] == "n = 3 pairs, 2 of them eligible"


def test_a_map_of_a_sweep_has_a_cell_for_each_layer_and_value_in_the_values_order():
    metrics = pd.concat([METRICS.assign(head=head) for head in (10, 9, 2)])
    chart = maps.swept_heat_map(metrics, ["head"], "flip_to_target_rate", "title", []).to_dict()
    (rows,) = chart["datasets"].values()
    assert {(row["layer"], row["value"]): row["flip_to_target_rate"] for row in rows} == {
        (layer, head): rate for head in (2, 9, 10) for layer, rate in enumerate((0.9, 0.5, 0.1))
    }
    y = chart["layer"][0]["encoding"]["y"]
    assert y["sort"] == [2, 9, 10] and y["title"] == "head"


def test_the_same_controls_have_the_same_colours_whatever_their_order():
    def styles(*names):
        tables = [curves.series(METRICS, "flip_to_target_rate", name, "n_pairs") for name in ("patch", *names)]
        layers = curves.control_curves(pd.concat(tables), METRICS, "title", []).to_dict()["layer"]
        (encoding,) = (layer["encoding"] for layer in layers if "color" in layer["encoding"])
        return dict(zip(encoding["color"]["scale"]["domain"], encoding["color"]["scale"]["range"], strict=True))

    names = [f"control {number}" for number in range(8)]
    assert styles(*names) == styles(*reversed(names))
    assert len(set(styles(*names).values())) == len(names) + 3  # the main curve and both reference lines


@pytest.mark.parametrize("n_layers", [3, 1])
def test_any_metric_is_drawn_by_layer_with_its_limits(n_layers):
    metrics = METRICS.assign(entropy_mean=[1.5, 1.0, 0.5], entropy_mean_low=0.25, entropy_mean_high=1.75)[:n_layers]
    chart = curves.metric_curve(metrics, "entropy_mean", "title", []).to_dict()
    rows = [row for row in (row for rows in chart["datasets"].values() for row in rows) if "value" in row]
    assert [(row["value"], row["low"], row["high"]) for row in rows] == [
        (value, 0.25, 1.75) for value in (1.5, 1.0, 0.5)[:n_layers]
    ]
    assert chart["usermeta"]["caption"] == "entropy by patched layer" and '"entropy_mean"' in json.dumps(chart)
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
