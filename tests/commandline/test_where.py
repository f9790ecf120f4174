"""`--where` on the command line: what runs, where it lands, and what the other experiments inherit."""

import json

import pytest

from tests.commands import FEW, MODEL, NO_FIGURES, call, fails, rows
from voicepatch.commandline.running import selection_names
from voicepatch.errors import BAD_INPUT, BAD_USAGE
from voicepatch.types.settings import Settings

EXPLICIT = ("--where", "text_type=explicit")
PATCH = ("patch", "--no-need", "--kind", "prosody", NO_FIGURES, "--layers", "0-1", *FEW)


def recorded(run, name="prosody"):
    return json.loads((run / "patching_config.json").read_text())["experiments"][name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A main experiment on sad recipients of explicit texts."""
    out = tmp_path_factory.mktemp("runs") / "run"
    said = call(*PATCH, "--out", out, "--where", "a.prosody_label=Sadness", *EXPLICIT)
    assert "data: --where text_type=explicit leaves 75 of 150 clips\n" in said
    assert "data: --where a.prosody_label=Sadness leaves 60 of 150 pairs\n" in said
    return out


def test_only_the_selected_pairs_run_and_the_run_records_the_conditions(run):
    pairs = rows(run / "pair_list_prosody.jsonl")
    assert {(pair["prosody_label_a"], pair["text_type_a"]) for pair in pairs} == {("sad", "explicit")}
    assert recorded(run)["where"] == ["a.prosody_label=Sadness", "text_type=explicit"]
    report = json.loads((run / "pair_construction_report.json").read_text())["prosody"]
    assert [row["n_left"] for row in report["selection"]] == [60, 75]


def test_the_order_of_the_conditions_does_not_matter(run):
    again = call(*PATCH, "--out", run, *EXPLICIT, *EXPLICIT, "--where", "a.prosody_label=Sadness")
    assert "all 5 pairs are done already" in again


def test_a_control_has_the_recipients_and_the_selection_of_the_main_experiment(run):
    call("control", "--kind", "random", "--out", run, NO_FIGURES, *MODEL)
    pairs = rows(run / "pair_list_random-prosody.jsonl")
    assert {pair["text_type_b"] for pair in pairs} == {"explicit"}
    assert recorded(run, "random-prosody")["where"] == recorded(run)["where"]
    call("control", "--kind", "no-conflict", "--out", run, NO_FIGURES, *MODEL)
    own = rows(run / "pair_list_no-conflict-prosody.jsonl")
    assert {(pair["prosody_label_a"], pair["text_type_a"]) for pair in own} == {("sad", "explicit")}


def test_a_control_with_another_selection_is_refused(run):
    why = fails("control", "--kind", "random", "--out", run, "--where", "text_type=implicit", *MODEL, status=BAD_USAGE)
    assert "whose where is a.prosody_label=Sadness,text_type=explicit, not text_type=implicit" in why


def test_an_interrupted_selection_goes_on_byte_for_byte(run, tmp_path):
    short = tmp_path / "run"
    where = ("--where", "a.prosody_label=Sadness", *EXPLICIT)
    call(*PATCH, "--out", short, *where)
    records, config = short / "patching_records_prosody.jsonl", short / "patching_config.json"
    whole = records.read_bytes()
    assert whole == (run / records.name).read_bytes()
    records.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    content = json.loads(config.read_text(encoding="utf-8"))
    content["experiments"]["prosody"]["finished"] = False
    config.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    call(*PATCH, "--out", short, *where)
    assert records.read_bytes() == whole


def test_the_settings_file_has_a_list(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("where: [text_type=explicit, b.prosody_label=sad]\n", encoding="utf-8")
    out = tmp_path / "run"
    call("pairs", "--kind", "prosody", "--config", file, "--out", out)
    pairs = rows(out / "pair_list_prosody.jsonl")
    assert {(pair["target"], pair["text_type_a"]) for pair in pairs} == {("sad", "explicit")}
    file.write_text("where: [text_type]\n", encoding="utf-8")
    why = fails("pairs", "--kind", "prosody", "--config", file, status=BAD_USAGE)
    assert "where: 'text_type' is not COLUMN=VALUE; write for example text_type=explicit" in why


@pytest.mark.parametrize(
    ("where", "status", "why"),
    [
        (["text_type"], BAD_USAGE, "'text_type' is not COLUMN=VALUE"),
        (["=explicit"], BAD_USAGE, "'=explicit' is not COLUMN=VALUE"),
        (["text_type="], BAD_USAGE, "'text_type=' is not COLUMN=VALUE"),
        (["a\tb=c"], BAD_USAGE, "is not COLUMN=VALUE"),
        (["text_typ=explicit"], BAD_USAGE, "did you mean text_type?"),
        (["a.speaker=f1", "b.speaker=m1"], BAD_INPUT, "a.speaker=f1 leaves 150 of 300 pairs, b.speaker=m1 leaves 150"),
    ],
)
def test_a_wrong_condition_ends_in_one_line(where, status, why):
    words = [word for condition in where for word in ("--where", condition)]
    assert why in fails("pairs", "--kind", "prosody", *words, status=status)


def test_the_directory_is_named_after_the_selection():
    def names(*where):
        return selection_names(Settings(where=where))

    assert names() == []
    assert names("text_type=explicit") == ["text_type-explicit"]
    assert names("a.speaker=f1", "gender=f") == ["a.speaker-f1--gender-f"]
    signs = [names(f"gender=f{sign}m")[0] for sign in (",", "/", " ")]
    assert len({*signs}) == 3 and all(name.startswith("gender-f-m-") for name in signs)
    (long,) = names("text=" + "word " * 60)
    assert len(long) < 50 and long != names("text=" + "word " * 61)[0]


def test_only_the_selected_clips_are_answered(tmp_path):
    call("answers", "--where", "text_id=happy_explicit_1", "--out", tmp_path / "run", *MODEL)
    answered = (tmp_path / "run" / "answers.csv").read_text().splitlines()[1:]
    assert len(answered) == 5 and all("happy_explicit_1" in line for line in answered)
    assert "leave out the a. or b. to select clips" in fails(
        "answers", "--where", "a.speaker=f1", *MODEL, status=BAD_USAGE
    )
    why = fails("answers", "--where", "speaker=f1", "--where", "speaker=m1", *MODEL, status=BAD_INPUT)
    assert "no clip is left by --where: speaker=f1 leaves 75 of 150 clips, speaker=m1 leaves 75" in why


def test_a_run_is_broken_down_by_the_columns_it_was_asked_for(tmp_path):
    out = tmp_path / "run"
    how = ("--layers", "0-1", "--out", out, *FEW)
    call("patch", "--no-need", "--kind", "prosody", "--by", "speaker", "--by", "b.prosody_label", *how)
    assert recorded(out)["by"] == ["speaker", "b.prosody_label"]
    files = {f"patching_metrics_prosody_by_{column}.csv" for column in ("text_type", "speaker", "b.prosody_label")}
    assert files <= {path.name for path in out.iterdir()}
    again = call("patch", "--no-need", "--kind", "prosody", "--by", "text_id", *how)
    assert "all 5 pairs are done already" in again and (out / "patching_metrics_prosody_by_text_id.csv").exists()
    call("control", "--kind", "random", "--out", out, *MODEL)  # it is broken down as the main experiment is
    assert (out / "patching_metrics_random-prosody_by_speaker.csv").exists()
    why = fails("patch", "--no-need", "--kind", "prosody", "--by", "spaeker", *how, status=BAD_USAGE)
    assert "--by 'spaeker': the data have no such column; did you mean speaker?" in why
