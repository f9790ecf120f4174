"""The report is one safe file that says what the run's files say."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from cli import cli
from tests.analysis.made_run import (
    DEMO,
    LABELS,
    Page,
    change,
    light,
    lose,
    make_run,
    records_in,
    write_lines,
    write_report,
)
from voicepatch.analysis.layer_metrics import layer_metrics
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.report import sounds
from voicepatch.report.browser import browser_data
from voicepatch.report.experiments import read_run
from voicepatch.report.summary import summarise


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run as it is made, with its report, which no test changes."""
    run = make_run(tmp_path_factory.mktemp("plain") / "run")
    write_report(run)
    return run


@pytest.fixture
def page(plain):
    return Page(plain / "report.html")


def test_nothing_is_loaded_from_elsewhere(page):
    assert page.addresses and all(address.startswith(("#", "data:")) for address in page.addresses)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page.source)[1]
    assert "default-src &#39;none&#39;" in policy and "unsafe-eval" not in policy
    assert "http" not in policy and policy.count("sha256-") == len(page.scripts) == 3
    assert not re.search(r"@import|url\(", page.source[: page.source.index("</style>")])


def test_it_stays_below_6_mb_for_100_pairs_and_36_layers(tmp_path):
    names = ("prosody", "semantic", "suffix-prosody", "random-prosody")
    page = Page(write_report(make_run(tmp_path / "run", names, n_pairs=100, n_layers=36)))
    assert len(page.source.encode()) < 6_000_000
    assert [len(e["pairs"]) for e in page.data["pairs-data"]["experiments"]] == [100] * 4
    assert len(page.data["sounds-data"]) == len(page.data["pairs-data"]["clips"])


def test_what_does_not_fit_is_left_out_and_counted(run, monkeypatch):
    monkeypatch.setattr(sounds, "BUDGET", 30_000)
    monkeypatch.setattr("voicepatch.report.browser.BUDGET", 900)
    page = Page(write_report(run))
    shown, n_sounds = page.data["pairs-data"]["experiments"][0], len(page.data["sounds-data"])
    assert 0 < len(shown["pairs"]) < 6 and len(shown["pairs"]) + shown["left_out"] == 6
    assert 0 < sum(map(len, page.data["sounds-data"].values())) <= 30_000
    left_out = len(page.data["pairs-data"]["clips"]) - n_sounds
    assert left_out == 0 or f"{left_out} of the" in page.text


def shown_pairs(results, pairs=None):
    """Experiment → places in its list of the pairs that the browser holds, and how many others there are."""
    data = browser_data(read_run(results), {}, pairs)
    places = {}
    for one in data["experiments"]:
        listed = results.experiment(one["name"]).pairs
        ids = [(data["clips"][pair["a"]]["id"], data["clips"][pair["b"]]["id"]) for pair in one["pairs"]]
        all_ids = list(zip(listed["clip_a"], listed["clip_b"], strict=True))
        places[one["name"]] = [all_ids.index(found) for found in ids], one["left_out"]
    return places


def test_the_pair_browser_holds_a_sample_that_is_the_same_each_time(tmp_path, monkeypatch):
    """Of every experiment the same places of its list, in the list's order; a larger number adds to a smaller one's."""
    monkeypatch.setattr("voicepatch.report.browser.MOST_PAIRS", 10)
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=30, n_layers=2)
    found, results = shown_pairs(Results(run)), Results(run)
    places, left_out = found["prosody"]
    assert found == shown_pairs(results) and found["random-prosody"] == (places, 20) == (places, left_out)
    assert len(places) == 10 and places == sorted(places) and not set(places) <= set(range(12))
    fewer, _ = shown_pairs(results, 3)["prosody"]
    assert len(fewer) == 3 and set(fewer) < set(places)
    assert shown_pairs(results, 1000)["prosody"] == shown_pairs(results, "all")["prosody"] == (list(range(30)), 0)


def test_a_pair_that_gave_no_record_takes_no_other_pairs_place_in_the_sample(tmp_path):
    run = make_run(tmp_path / "run", n_pairs=30, n_layers=2)
    drawn, _ = shown_pairs(Results(run), 10)["prosody"]
    lose(run, pairs=(drawn[4],))
    places, left_out = shown_pairs(Results(run), 10)["prosody"]
    assert len(set(places) - set(drawn)) == 1 and set(drawn) - set(places) == {drawn[4]} and left_out == 19


def test_what_the_user_asks_for_is_there_whatever_its_size(plain, monkeypatch):
    results = Results(plain)
    monkeypatch.setattr("voicepatch.report.browser.BUDGET", 900)
    assert 0 < len(shown_pairs(results)["prosody"][0]) < 6
    assert shown_pairs(results, 6)["prosody"] == shown_pairs(results, "all")["prosody"] == (list(range(6)), 0)


@pytest.mark.parametrize(("words", "n"), [((), 4), (("--pairs-in-report", "2"), 2), (("--pairs-in-report", "all"), 4)])
def test_report_is_told_how_many_pairs_it_holds(tmp_path, words, n, monkeypatch):
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda *_: None)
    run = make_run(tmp_path / "run", n_pairs=4, n_layers=2)
    assert CliRunner().invoke(cli, ["report", str(run), *words]).exit_code == 0
    assert len(Page(run / "report.html").data["pairs-data"]["experiments"][0]["pairs"]) == n


def test_the_same_files_give_the_same_page(plain, tmp_path):
    other = shutil.copytree(plain, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("report.html"))
    assert (plain / "report.html").read_bytes() == write_report(other).read_bytes()


def test_the_pair_browser_holds_the_records(plain, page):
    data = page.data["pairs-data"]
    records = records_in(plain, "prosody")
    shown = data["experiments"][0]
    assert shown["rows"] == [[layer, 0] for layer in range(4)] and shown["combinations"] == [""]
    for pair, (_, mine) in zip(shown["pairs"], records.groupby("pair_id", sort=False), strict=True):
        patched = [row[label] for row in mine["logits_patch"] for label in data["labels"]]
        assert pair["patch"] == pytest.approx(patched, abs=6e-4)
        assert data["clips"][pair["a"]]["id"] == mine["clip_a"].iloc[0]
        assert data["labels"][pair["target"]] == mine["target"].iloc[0]


def test_the_pair_browser_shows_the_answers_of_the_records_where_rounding_would_change_them(run):
    """It was once otherwise: of a margin below 0.0005 logits the page showed the other label."""
    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    patch = dict.fromkeys(LABELS, 0.0) | {"happy": 7.0001, "angry": 7.0003}
    before, target = rows[0]["pred_base"], rows[0]["target"]
    rows[0] |= {"logits_patch": patch, "pred_patch": "angry", "flip_to_target": target == "angry"}
    rows[0] |= {
        "flip_from_base": before != "angry",
        "delta_logit_target": patch[target] - rows[0]["logits_base"][target],
    }
    write_lines(path, rows)
    shown = Page(write_report(run)).data["pairs-data"]
    pair = shown["experiments"][0]["pairs"][0]
    assert pair["patch"][1] == pair["patch"][3] == 7.0  # by the logits alone, the first of the two
    assert [shown["labels"][number] for number in pair["answers"][:3]] == [before, rows[0]["prosody_label_b"], "angry"]


def test_of_one_text_there_is_no_interval_and_the_text_says_why(tmp_path):
    run = make_run(tmp_path / "run", n_pairs=1)
    text = Page(write_report(run)).text
    assert "no 95 % interval: whole texts are resampled for it, and these pairs have 1 text" in text
    assert "No 95 % interval: whole texts are resampled for it, and these pairs have 1 text." in text  # methods
    assert "(95 % interval" not in text and "n = 1 pair, 1 of them eligible" in text


@pytest.mark.parametrize("what", ["a single layer", "a dose below 1", "none eligible"])
def test_sentences_are_true_of_small_runs(tmp_path, what):
    run = make_run(tmp_path / "run", n_layers=1 if what == "a single layer" else 4)
    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if what == "a dose below 1":
        change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(patch_alpha=0.5))
        rows = [row | {"patch_alpha": 0.5} for row in rows]
    if what == "none eligible":
        lists = [json.loads(line) for line in (run / "pair_list_prosody.jsonl").read_text().splitlines()]
        answer = {"clip": lists[0]["target"]}
        rows = [deaf(row, row["target"]) for row in rows if row["target"] == answer["clip"]]
        lists = [row for row in lists if row["target"] == answer["clip"]]
        write_lines(run / "pair_list_prosody.jsonl", lists)
    write_lines(path, rows)
    text = Page(write_report(run)).text
    if what == "a single layer":
        assert "at one layer at a time (all 1 layers)" in text and "when patched at layer 0." in text
        assert "layer 3" not in text
    if what == "a dose below 1":
        assert "B with α = 0.5." in text and "prosody at alpha 0.5" in text and ", alpha 0.5" in text
    if what == "none eligible":
        assert "0 of them eligible" in text and "0 pairs were eligible" in text
        assert "The flip-to-target rate among eligible pairs" not in text and "There is no hand-over layer" in text


def deaf(row, label):
    """The record of a model that says `label` whatever it hears."""
    logits = dict.fromkeys(LABELS, 0.0) | {label: 9.0}
    row |= {"pred_base": label, "pred_patch": label, "eligible": row["target"] != label}
    row |= {"flip_to_target": row["target"] == label, "flip_from_base": False, "delta_logit_target": 0.0}
    return row | {f"logits_{of}": logits for of in ("base", "patch", "donor")}


def test_the_report_of_a_sweep_names_cells_sites_and_the_docstring(tmp_path):
    run = make_run(tmp_path / "run", ("heads-prosody",))
    path = run / "patching_records_heads-prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    site, combinations = "self_attn.o_proj.input", [(0.5, 3), (0.5, 0), (1.0, 3), (1.0, 0)]
    rows = [row | {"patch_alpha": a, "head": h, "site": site} for a, h in combinations for row in rows]
    write_lines(path, sorted(rows, key=lambda row: row["pair_id"]))
    swept = ["patch_alpha", "head"]
    new = {"describes": "One head at a time.", "swept": swept, "patch_alpha": [0.5, 1.0], "options": {"head": [3, 0]}}
    change(
        run, "patching_config.json", lambda config: config["experiments"]["heads-prosody"].update(control=False, **new)
    )
    page = Page(write_report(run))
    shown = page.data["pairs-data"]["experiments"][0]
    assert shown["combinations"] == ["alpha 1, head 3", "alpha 1, head 0", "alpha 0.5, head 3", "alpha 0.5, head 0"]
    assert shown["rows"] == [[layer, number] for number in (2, 3, 0, 1) for layer in range(4)]
    assert {len(pair["patch"]) for pair in shown["pairs"]} == {4 * 4 * len(LABELS)}
    assert shown["what"] == "One head at a time." and shown["site"] == "input of o_proj (a head's slice)"
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"\d+% \(layer 0, head [03]\)", text) and "written: input of o_proj (a head's slice)" in text
    assert "--head 3,0" in text and "--alpha 0.5,1" in text
    assert "All metrics by layer and patch_alpha and head" in text
    assert "6 of them eligible (A unpatched does not give the target); model toy, data synthetic-clips" in text


@pytest.mark.parametrize(
    "words", ["</script><script>hacked()</script>", "<!-- <script>", "\" onload='x'", "\u2028 😀 {{ 7 * 7 }}"]
)
def test_what_data_say_stays_text(tmp_path, page, words):
    data = tmp_path / "data"
    data.mkdir()
    columns = ["clip_id", "path", "text_id", "text", "semantic_label", "prosody_label", "speaker"]
    rows = []
    for label in ("happy", "sad"):
        shutil.copy(DEMO / label / "sad_implicit_1.flac", data / f"{label}.flac")
        rows.append([f"{words} {label}", f"{label}.flac", words, words + "!", "sad", label, words])
    write_lines(data / "manifest.jsonl", [dict(zip(columns, row, strict=True)) for row in rows])
    run = make_run(tmp_path / "run", data=data)
    change(run, "patching_config.json", lambda config: config["model"].update(name=words))
    change(run, "patching_config.json", lambda config: config["data"].update(warnings=[words]))
    hostile = Page(write_report(run))
    assert hostile.scripts == page.scripts and set(hostile.tags) == set(page.tags)
    assert {clip["text"] for clip in hostile.data["pairs-data"]["clips"]} == {words.strip() + "!"}
    assert hostile.text.count(words) >= 4


def test_the_methods_text_holds_this_runs_numbers(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=17)
    text = Page(write_report(run)).text
    methods = text[text.index("We used activation patching") :]
    metrics = layer_metrics(records_in(run, "prosody"))
    config = json.loads((run / "patching_config.json").read_text())
    possible = json.loads((run / "pair_construction_report.json").read_text())["prosody"]["pairs_possible"]
    for expected in (
        "toy (4 decoder layers)",
        f"hidden size 8, weights sha256 {config['model']['sha256'][:12]}",
        f"{config['data']['n_clips']} clips",
        "“Which emotion?”",
        f"Prosody pairs: 17 of {possible} possible were sampled (seed 42",
        f"{metrics['eligible_count'][0]} pairs were eligible",
        f"rate among eligible pairs was {metrics['flip_to_target_rate_eligible'][0]:.0%} (95 % interval",
        "when patched at layer 3",
        "neither of its labels the target; written: output of the block (residual stream)): at most ",
        "Labels of several tokens: angry.",
        "nnsight 0.8.1",
    ):
        assert expected in methods, expected


def test_the_hand_over_the_intervals_and_the_contrasts_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_style, "save", lambda chart, path: [])
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=20)
    results = Results(run)
    for name in results.names:
        summarise(results, name)
    found = json.loads((run / "statistics_prosody.json").read_text())["hand_over"]
    text = Page(write_report(run)).text
    assert found["definition"] in text
    layer = re.search(r"The hand-over layer is (\d+\.\d\d?) \(95 % interval (\d+\.\d\d?) to (\d+\.\d\d?)\)", text)
    assert [float(number) for number in layer.groups()] == pytest.approx(
        [found[key] for key in ("layer", "low", "high")], abs=0.05
    )
    assert "Difference from random-prosody, by layer" in text and "95 % interval" in text
    assert "come from resampling whole texts. 95 % intervals and tests hold for these 2 speakers." in text


def test_an_interpolated_donor_is_reported_as_an_approximation(run):
    path = run / "patching_records_prosody.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    n_of = {clip: 12 + at for at, clip in enumerate(sorted({one[f"clip_{side}"] for one in records for side in "ab"}))}
    for one in records:
        one |= {"len_a": n_of[one["clip_a"]], "len_b": n_of[one["clip_b"]]}
        one["n_patched"] = min(one["len_a"], one["len_b"])
    write_lines(path, records)
    of_pair = {one["pair_id"]: (one["len_a"], one["len_b"]) for one in records}.values()
    assert f"{sum(b > a for a, b in of_pair)} donors lose theirs" in Page(write_report(run)).text
    change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(align="resample_linear"))
    write_lines(path, [one | {"n_patched": one["len_a"]} for one in records])
    text = Page(write_report(run)).text
    apart = max(abs(a - b) / max(a, b) for a, b in of_pair)
    assert "interpolated along time to A's length (resample_linear). This is an approximation" in text
    assert f"In 6 of 6 pairs the lengths differ, by up to {apart:.0%} of the longer one." in text
    assert "B's values interpolated linearly along time to their number, was set to" in text
    assert "lose theirs" not in text


@pytest.mark.parametrize("left", ["nothing", "a torn line", "half of the pairs"])
def test_an_unfinished_experiment_is_shown_as_far_as_it_goes(tmp_path, left):
    run = make_run(tmp_path / "run", ("prosody", "semantic"))
    records = run / "patching_records_semantic.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    kept = {"nothing": [], "a torn line": [*lines[:5], lines[5][:40]], "half of the pairs": lines[: 3 * 4]}[left]
    records.write_text("".join(kept)) if kept else records.unlink()
    change(run, "patching_config.json", lambda config: config["experiments"]["semantic"].update(finished=False))
    page = Page(write_report(run))
    n = {"half of the pairs": 3, "a torn line": 1}.get(left, 0)
    assert f"{n} of 6 pairs are measured" in page.text and light(page, "Every pair is measured") == "note"
    shown = {e["name"]: len(e["pairs"]) for e in page.data["pairs-data"]["experiments"]}
    assert shown["prosody"] == 6 and shown.get("semantic", 0) == n


def test_a_run_of_a_control_alone_has_a_report(tmp_path):
    written = write_report(make_run(tmp_path / "run", ("random-prosody",)))
    assert Page(written).text.count("has no main experiment") == 1
    assert "<li>random-prosody (" in written.read_text(encoding="utf-8")


def test_commands_repeat_the_run(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"))
    change(
        run,
        "patching_config.json",
        lambda c: c["experiments"]["prosody"].update(
            layers_to_patch=[0, 1, 2, 5], patch_all_layers=False, same_speaker=False
        ),
    )
    change(run, "patching_config.json", lambda c: c["model"].update(n_layers=6))
    records = run / "patching_records_prosody.jsonl"
    records.write_text(records.read_text().replace('"layer": 3', '"layer": 5'))
    text = Page(write_report(run)).text
    assert "cli.py patch --kind prosody" in text and "--layers 0-2,5" in text and "--any-speaker" in text
    assert "cli.py control --kind random --pairs prosody" in text


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no experiment"):
        write_report(tmp_path)
