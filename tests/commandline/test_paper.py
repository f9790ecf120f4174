"""`figure` and `table`: what goes from a run into a paper, at the width of a column."""

import csv
import io
import json
import re
import shutil
from xml.etree import ElementTree

import pandas as pd
import pypdfium2
import pypdfium2.raw as pdfium
import pytest

from tests.analysis.made_run import make_run, write_lines
from tests.commands import call, fails
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import speakers_note
from voicepatch.figures import paper
from voicepatch.report import paper_table
from voicepatch.report.summary import as_text, summarise

NAMES = ("prosody", "semantic", "random-prosody", "self-prosody")
COLUMN = 3.3 * 72  # points
MAIN_FIGURES = (
    "flip_rate_curve_prosody",
    "delta_logit_curve_prosody",
    "controls_prosody",
    "prosody_and_semantic",
    "label_matrix_prosody",
    "pair_heat_map_prosody",
    "unpatched_confusion_prosody",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    make_run(run, NAMES, n_pairs=12)
    for name in NAMES:
        summarise(Results(run), name)
    return run


def letters_of(file):
    """Width of the page, and the size of each piece of text on it as it is drawn, in points."""
    page = pypdfium2.PdfDocument(file)[0]
    sizes = {}
    for piece in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_TEXT]):
        size, matrix = pdfium.c_float(), piece.get_matrix()
        pdfium.FPDFTextObj_GetFontSize(piece, size)
        sizes[len(sizes)] = size.value * (matrix.c**2 + matrix.d**2) ** 0.5
    return page.get_width(), list(sizes.values())


@pytest.mark.parametrize("name", MAIN_FIGURES)
def test_at_the_width_of_a_column_no_letter_of_a_main_figure_is_below_7_points(run, tmp_path, name):
    file = tmp_path / "figure.pdf"
    call("figure", run, name, "--width", "3.3in", "--out", file)
    width, sizes = letters_of(file)
    assert width == pytest.approx(COLUMN, abs=0.5)
    assert len(sizes) > 5 and min(sizes) >= 7 and max(sizes) <= 9


def test_a_figure_is_written_as_pdf_svg_and_png_with_its_caption_and_without_its_title(run, tmp_path):
    for form in ("pdf", "svg", "png"):
        said = call("figure", run, "prosody", "--width", "84mm", "--format", form)
        file = run / "paper" / f"flip_rate_curve_prosody.{form}"
        assert str(file) in said and file.is_file()
    assert (run / "paper" / "flip_rate_curve_prosody.txt").read_text() == (
        run / "flip_rate_curve_prosody.txt"
    ).read_text()
    svg = (run / "paper" / "flip_rate_curve_prosody.svg").read_text()
    root = ElementTree.fromstring(svg)
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(84 / 25.4 * 72, abs=0.01)
    assert "patched layer" in svg and "Prosody pairs" not in svg and "model toy" not in svg
    png = (run / "paper" / "flip_rate_curve_prosody.png").read_bytes()
    assert int.from_bytes(png[16:20]) == pytest.approx(84 / 25.4 * 300, abs=2)


def test_the_caption_of_a_figure_has_what_stood_above_it(run):
    caption = (run / "flip_rate_curve_prosody.txt").read_text()
    for part in ("Prosody pairs: ", "n = 12 pairs", "them eligible (A unpatched", "Model toy, data ", "95 % intervals"):
        assert part in caption
    assert caption.endswith(".\n") and "\n" not in caption[:-1]


def test_the_height_is_kept_and_a_size_without_room_for_the_panels_is_refused(run, tmp_path):
    file = tmp_path / "figure.svg"
    call("figure", run, "controls_prosody", "--height", "6in", "--out", file)
    assert float(re.search(r'height="([\d.]+)pt"', file.read_text())[1]) == pytest.approx(432, rel=0.01)
    line = fails("figure", run, "prosody", "--width", "1in", "--out", file, status=2)
    least = re.search(r"too narrow; pass ([\d.]+in) or more", line)[1]
    call("figure", run, "prosody", "--width", least, "--out", file)
    assert "too low; pass " in fails("figure", run, "prosody", "--height", "0.5in", "--out", file, status=2)


def test_lines_panels_and_axes_have_the_names_that_are_asked_for(run, tmp_path):
    file = tmp_path / "figure.svg"
    words = ("--label", "prosody=Voice", "--label", "patched layer=Layer")
    call("figure", run, "prosody_and_semantic", *words, "--out", file)
    svg = file.read_text()
    assert ">Voice<" in svg and ">Layer<" in svg and "prosody" not in svg and "semantic" in svg
    line = fails("figure", run, "prosody_and_semantic", "--label", "prosdy=Voice", "--out", file, status=2)
    assert "'prosdy': is no name in the figure; it has" in line and "prosody pairs (B's voice)" in line
    line = fails("figure", run, "controls_prosody", "--label", "control=x", "--out", file, status=2)
    assert "'control': is the beginning of several names" in line


def test_a_name_keeps_its_count_when_it_is_changed(run, tmp_path):
    file = tmp_path / "figure.svg"
    call("figure", run, "controls_prosody", "--label", "random=Chance", "--out", file)
    panels = [text.replace("\u00a0", " ") for text in re.findall(r">([^<>]*n = \d+[^<>]*)<", file.read_text())]
    assert any(re.fullmatch(r"Chance, n = \d+.*", panel) for panel in panels), panels


WRONG = {
    "an unknown figure": (("controls_prosdy",), "has no figure 'controls_prosdy'; did you mean controls_prosody?"),
    "a font that is missing": (
        ("prosody", "--font", "No Such Font"),
        "'No Such Font': is not installed; use one of sans",
    ),
    "markup as a font": (("prosody", "--font", '"/><b>'), "is not installed"),
    "a width without a unit": (("prosody", "--width", "3.3"), "'3.3' is not a length; write for example 3.3in"),
    "a width of a wall": (("prosody", "--width", "500in"), "500in is not between 0.5in and 40in"),
    "a label without a name": (("prosody", "--label", "=x"), "'=x' is not OLD=NEW"),
    "another kind of file": (("prosody", "--out", "figure.jpg"), "figure.jpg: its suffix must be .pdf, .svg or .png"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_one_line_and_writes_nothing(run, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    words, why = WRONG[what]
    assert why in fails("figure", run, *words, status=2)
    assert not list(tmp_path.iterdir())


def test_without_a_name_the_figures_and_the_tables_are_listed(run):
    figures = dict(line.split(": ", 1) for line in call("figure", run).splitlines())
    assert set(MAIN_FIGURES) < set(figures)
    assert figures["controls_prosody"] == "Prosody pairs: the main experiment and its controls"
    assert {"patching_metrics_prosody", "contrast_prosody_vs_semantic"} < set(call("table", run).splitlines())


def test_a_font_that_is_installed_is_in_the_file(run, tmp_path):
    file = tmp_path / "figure.pdf"
    call("figure", run, "prosody", "--font", "serif", "--out", file)
    assert b"Serif" in b"".join(re.findall(rb"/BaseFont ?/\S+", file.read_bytes()))


# --- tables

HOSTILE = r"a & b % c $ d # e_f { g } ~ ^ \ end"


def test_every_character_that_latex_takes_for_a_command_is_escaped():
    table = paper_table.PaperTable(HOSTILE, [HOSTILE], [[HOSTILE]], [False])
    text = paper_table.latex(table, "a_b%c")
    escaped = r"a \& b \% c \$ d \# e\_f \{ g \} \textasciitilde{} \textasciicircum{} \textbackslash{} end"
    assert text.count(escaped) == 3 and r"\label{tab:a-b-c}" in text
    assert re.findall(r"\\begin\{(\w+)\}", text) == list(reversed(re.findall(r"\\end\{(\w+)\}", text)))
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_a_first_cell_is_no_argument_of_the_row_before_it():
    table = paper_table.PaperTable(
        "c", ["[a]", "b"], [["*x", "*y"], ["f1 → m1", "−"], ["\u2401", "\ufffd"]], [False, False]
    )
    text = paper_table.latex(table, "name")
    assert "    {}[a] & b " in text and "    {}*x & *y " in text and r"f1 $\rightarrow$ m1 & $-$" in text
    assert r"\texttt{01} & ?" in text
    assert text.isascii()


def test_a_table_of_a_damaged_experiment_is_an_error(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "patching_records_prosody.jsonl"
    file.write_text(file.read_text()[:-200])
    for name in ("prosody", "patching_metrics_prosody"):
        assert "patching_records_prosody.jsonl" in fails("table", tmp_path / "run", name, status=1)


def test_a_selection_is_in_every_caption(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "patching_config.json").read_text())
    for settings in config["experiments"].values():
        settings |= {"where": ["text_type=explicit"], "only": "answered"}
    (tmp_path / "run" / "patching_config.json").write_text(json.dumps(config))
    said = call("table", tmp_path / "run", "prosody")
    call("figure", tmp_path / "run", "prosody", "--out", tmp_path / "figure.svg")
    words = ["only text", "only pairs whose clips the unpatched model answers with their own labels"]
    for text in (said.replace("\\_", "_"), (tmp_path / "figure.txt").read_text()):
        assert all(part in text.replace("Only", "only") for part in words)


def test_a_table_of_metrics_has_intervals_digits_by_their_width_and_the_number_of_pairs_in_its_caption(run):
    metrics = pd.read_csv(run / "patching_metrics_prosody.csv")
    text = call("table", run, "prosody")
    row = next(line for line in text.splitlines() if line.startswith("    0 & "))
    value, low, high = (metrics[f"flip_to_target_rate{end}"].iloc[0] for end in ("", "_low", "_high"))
    assert f"& {value:.2f} [{low:.2f}, {high:.2f}] &" in row
    assert f"n = 12 pairs, {metrics['eligible_count'].iloc[0]} eligible pairs." in text
    assert "Model toy, data" in text and r"95 \% intervals" in text and "flip_to" not in text
    assert text.count("\\\\\n") == 1 + len(metrics)


def test_a_column_has_one_number_of_decimals_and_a_narrow_row_does_not_give_digits_to_all():
    rows = {"effect": [-15.9, 2.4, 0.001], "limit_low": [-49.3, -9.3, 0.0], "limit_high": [3.0, 20.2, 0.004]}
    cells = [row[0] for row in paper_table.paper_table(pd.DataFrame(rows), "caption").rows]
    assert cells == ["−15.9 [−49.3, 3.0]", "2.4 [−9.3, 20.2]", "0.0 [0.0, 0.0]"]


def test_a_breakdown_says_by_what_and_every_caption_what_its_intervals_are(run):
    text = call("table", run, "patching_metrics_prosody_by_text_type", "--format", "markdown")
    assert text.startswith("Prosody: metrics by layer, by text type. B's residual stream")
    for name in ("prosody", "contrast_prosody_vs_random-prosody"):
        assert "95 % intervals, texts as the sample" in call("table", run, name, "--format", "markdown")
    note = speakers_note(Results(run).experiment("prosody").pairs)
    assert "these 2 speakers" in note and note in text and note in (run / "flip_rate_curve_prosody.txt").read_text()


def test_a_table_shows_the_values_of_an_option_that_was_swept():
    rows = {"layer": [0, 0], "flip_to_target_rate": 0.5, "label_mass_patch_mean": 1.0, "site": "output", "head": [3, 5]}
    assert paper_table.paper_table(pd.DataFrame(rows), "caption").headings == ["Layer", "Head", "Flips to target"]


@pytest.fixture(scope="module")
def compared(run):
    out = run.parent / "compared"
    call("compare", run, "--by", "text_type", "--out", out)
    return out


def test_a_figure_of_a_comparison_is_drawn_from_its_folder(compared, tmp_path):
    listed = dict(line.split(": ", 1) for line in call("figure", compared).splitlines())
    assert listed["compare_prosody"] == "Prosody pairs by text type"
    call("figure", compared, "prosody", "--out", tmp_path / "figure.svg")
    assert "relative depth" in (tmp_path / "figure.svg").read_text()
    assert (tmp_path / "figure.txt").read_text() == (compared / "compare_prosody.txt").read_text()
    assert "did you mean compare_prosody?" in fails("figure", compared, "compare_prosdy", status=2)


@pytest.mark.parametrize("text", ["", "{", '{"runs": ["no run"], "by": null, "experiment": null}\n'])
def test_a_comparison_whose_file_or_runs_are_damaged_is_one_line(compared, tmp_path, text):
    folder = shutil.copytree(compared, tmp_path / "folder")
    (folder / "compared.json").write_text(text)
    line = fails("figure", folder, status=1)
    assert "compared.json" in line or "no run" in line


def test_the_table_of_hand_over_layers_has_what_a_paper_shows(compared):
    lines = call("table", compared, "hand_over", "--format", "markdown").splitlines()
    assert lines[0].startswith("Hand-over layers of the curves that are compared")
    assert lines[2].startswith("| Curve | Kind | Pairs | Hand-over layer |") and "sha256" not in lines[2]


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_a_table_is_written_whole_in_each_format_with_the_columns_that_are_asked_for(run, tmp_path, form):
    file = tmp_path / "table.txt2"
    call("table", run, "prosody", "--format", form, "--columns", "layer,flip_from_base_rate", "--out", file)
    text = file.read_text()
    if form == "csv":
        heading, *cells = csv.reader(io.StringIO(text))
        assert heading == ["Layer", "Answer changes"] and [row[0] for row in cells] == ["0", "1", "2", "3"]
        assert "Prosody: metrics by layer." in (tmp_path / "table.txt").read_text()
    else:
        row = {"markdown": "| 3 | ", "latex": "    3 & "}[form]
        assert sum(line.startswith(row) for line in text.splitlines()) == 1


def test_a_contrast_has_its_interval_and_p_values_in_words(run):
    text = call("table", run, "contrast_prosody_vs_random-prosody", "--format", "markdown")
    assert text.startswith("Prosody less random-prosody, by layer; p (all layers) is corrected")
    heading = next(line for line in text.splitlines() if line.startswith("| Layer"))
    assert "| Difference | p | p (all layers) |" in heading
    assert re.search(r"^\| 0 \| [−\d.]+ \\\[[−\d.]+, [−\d.]+\\\] \| [\d.\\< ]+ \|", text, flags=re.MULTILINE)


def test_texts_of_a_table_cannot_break_out_of_a_cell():
    table = paper_table.paper_table(pd.DataFrame({"a|b": ["x | y\n`z`", "'=1+1"], "n": [1, 2]}), "caption")
    lines = paper_table.markdown(table).splitlines()
    assert lines[2:] == ["| A\\|b | N |", "| --- | ---: |", "| x \\| y \\`z\\` | 1 |", "| =1+1 | 2 |"]


def test_an_unknown_table_or_column_is_answered_with_the_nearest_one(run, tmp_path):
    assert "has no table 'prosdy'; did you mean prosody?" in fails("table", run, "prosdy", status=2)
    line = fails("table", run, "prosody", "--columns", "layer,flip_from_base", status=2)
    assert "has no column 'flip_from_base'; did you mean flip_from_base_rate?" in line
    assert "has no tables; make them with" in fails("table", tmp_path, "prosody", status=2)


def test_the_letters_of_a_paper_are_8_points():
    assert paper.FONT_SIZE == 8


def test_names_in_a_filter_are_renamed_too():
    spec = {"transform": [{"filter": "(datum.series === 'pairs of the panel')"}], "encoding": {"x": {"title": "layer"}}}
    spec["encoding"]["color"] = {"field": "layer", "scale": {"domain": ["all pairs", "pairs of the panel"]}}
    new = paper.renamed(spec, {"pairs of the panel": "men's", "layer": "Layer"})
    assert new["transform"] == [{"filter": '(datum.series === "men\'s")'}]
    assert new["encoding"]["color"] == {"field": "layer", "scale": {"domain": ["all pairs", "men's"]}}
    assert new["encoding"]["x"] == {"title": "Layer"}


@pytest.fixture(scope="module")
def run_of_clips(tmp_path_factory):
    """A run of clips without donors."""
    run = make_run(tmp_path_factory.mktemp("clips") / "run", ("noise-prosody",), n_pairs=12)
    pairs, records = (run / f"{stem}_noise-prosody.jsonl" for stem in ("pair_list", "patching_records"))
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    clips = {row["pair_id"]: row | {f"{key[:-2]}_b": row[key] for key in row if key.endswith("_a")} for row in rows}
    write_lines(pairs, clips.values())
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    of_clip = [{key: value for key, value in clips[row["pair_id"]].items() if key in row} for row in rows]
    write_lines(
        records, [row | of | {"logits_donor": row["logits_base"]} for row, of in zip(rows, of_clip, strict=True)]
    )
    summarise(Results(run), "noise-prosody")
    return run


def test_a_table_of_clips_counts_clips_and_has_no_column_of_a_target(run_of_clips):
    markdown = call("table", run_of_clips, "noise-prosody", "--format", "markdown")
    assert "N = 12 clips." in markdown or "n = 12 clips." in markdown
    assert "target" not in markdown and "eligible" not in markdown and "Answer changes" in markdown
    metrics, _ = summarise(Results(run_of_clips), "noise-prosody")
    assert "n_clips" in as_text(metrics) and "n_pairs" not in as_text(metrics)


def test_columns_are_chosen_by_their_headings_too(run):
    by_name = call("table", run, "prosody", "--columns", "layer,flip_from_base_rate")
    assert call("table", run, "prosody", "--columns", "Layer,Answer changes") == by_name
    assert "did you mean" in fails("table", run, "prosody", "--columns", "Answer change", status=2)
