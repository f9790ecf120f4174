"""Figures are declarations that hold what their title and legend say."""

import pandas as pd
import pytest

from analysis import plots

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
    }
)


def datasets(chart):
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_the_flip_rate_figure_holds_every_series_under_its_name():
    rows = datasets(plots.flip_rate_curve(METRICS, "title", ["n = 3"]))
    rates = {(row["series"], row["layer"]): row["rate"] for row in rows if "series" in row}
    for name, (column, _, _) in plots.FLIP_STYLES.items():
        assert [rates[name, layer] for layer in (0, 1, 2)] == METRICS[column].tolist()


@pytest.mark.parametrize("draw", [plots.flip_rate_curve, plots.delta_logit_curve])
@pytest.mark.parametrize("metrics", [METRICS, METRICS[:1]], ids=["three layers", "one layer"])
def test_figures_become_png_files_at_print_resolution(tmp_path, draw, metrics):
    path = tmp_path / "figure.png"
    plots.save(draw(metrics, "title", ["n = 3 pairs"]), tmp_path / "figure")
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and int.from_bytes(header[16:20]) > 1000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


def test_titles_say_what_n_is():
    chart = plots.delta_logit_curve(METRICS, "Prosody pairs", ["n = 3 pairs, 2 of them eligible"])
    title = chart.to_dict()["title"]
    assert title["text"] == "Prosody pairs" and title["subtitle"][0] == "n = 3 pairs, 2 of them eligible"


def test_a_control_has_its_own_style_whichever_others_are_drawn():
    def curve(name, words):
        return pd.DataFrame({"layer": [0, 1], "rate": [0.5, 0.1], "series": words, "intervention": name, "n": 3})

    def styles(*tables):
        encoding = plots.control_curves(pd.concat(tables), "title", []).to_dict()["layer"][0]["encoding"]
        return dict(zip(encoding["color"]["scale"]["domain"], encoding["color"]["scale"]["range"], strict=True))

    main, suffix, mine = curve("patch", "main"), curve("suffix", "after"), curve("my-own", "mine")
    assert styles(main, suffix)["after"] == styles(main, mine, suffix)["after"]
    assert len(set(styles(main, mine, suffix).values())) == 3
