"""What becomes of a lens's records: the table, the figure, and what the report says and checks."""

import json

import pandas as pd
import pytest

from interventions.figures.lens import ALL, DIFFER, FINAL, NAMES, leads
from tests.commands import MODEL, NO_FIGURES, call
from tests.small import N_LAYERS
from voicepatch.analysis.results import Results
from voicepatch.figures.charts import charts_of
from voicepatch.report import write_report
from voicepatch.report.summary import as_text, summarise

LENS = "lens-prosody"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The demo's lens beside a short main experiment, without pictures."""
    out = tmp_path_factory.mktemp("lens") / "run"
    call(
        "patch",
        "--no-need",
        "--kind",
        "prosody",
        "--layers",
        "0,3",
        "--max-pairs",
        "4",
        *MODEL,
        "--out",
        out,
        NO_FIGURES,
    )
    call("lens", *MODEL, "--out", out, NO_FIGURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
        for name in ("prosody", LENS):
            summarise(Results(out), name)
    return out


def read(run):
    lens = Results(run).experiment(LENS)
    return lens.records, lens.pairs


def test_the_table_counts_each_clip_once_by_layer(run):
    records, pairs = read(run)
    table = pd.read_csv(run / f"lens_{LENS}.csv")
    for group, members in ((ALL, pairs), (DIFFER, pairs[pairs["semantic_label_b"] != pairs["prosody_label_b"]])):
        mine = table[table["clips"] == group]
        assert mine["layer"].tolist() == list(range(N_LAYERS)) and (mine["n_clips"] == len(members)).all()
        at_3 = records[(records["layer"] == 3) & records["pair_id"].isin(members["pair_id"])]
        row = mine[mine["layer"] == 3].iloc[0]
        assert row["words_lead"] == pytest.approx((at_3["pred_patch"] == at_3["semantic_label_b"]).mean(), abs=1e-5)
        assert row["voice_leads"] == pytest.approx((at_3["pred_patch"] == at_3["prosody_label_b"]).mean(), abs=1e-5)
        assert row["words_lead_low"] <= row["words_lead"] <= row["words_lead_high"]
        last = mine.iloc[-1]
        assert last["answer_leads"] == 1
        assert (last["words_lead"], last["voice_leads"]) == (last["words_final"], last["voice_final"])


def test_the_figure_has_the_lens_the_final_answers_and_the_main_curve(run):
    charts = charts_of(Results(run), LENS)
    assert list(charts) == [f"lens_{LENS}"]  # and no flip rates, since nothing is patched
    shown = {row["series"] for rows in charts[f"lens_{LENS}"].to_dict()["datasets"].values() for row in rows}
    assert shown == {
        *NAMES.values(),
        *(name for _, name in FINAL.values()),
        "patched: eligible prosody pairs that answer with B's label",
    }
    assert "whose words and voice have different labels" in str(charts[f"lens_{LENS}"].to_dict()["usermeta"]["notes"])


def test_the_terminal_shows_what_leads_and_no_flips(run, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    head, *lines = as_text(summarise(Results(run), LENS)[0]).splitlines()
    assert head.split() == ["clips", "layer", "n_clips", "words_lead", "voice_leads", "answer_leads"]
    assert len(lines) == 2 * N_LAYERS


def test_without_clips_whose_labels_differ_all_are_shown(run):
    records, pairs = read(run)
    table = leads(records, pairs.assign(semantic_label_b=pairs["prosody_label_b"]), resamples=50)
    assert set(table["clips"]) == {ALL}


def test_the_report_says_what_a_lens_does_not_show_and_checks_its_last_layer(run, monkeypatch):
    monkeypatch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
    page = write_report(Results(run)).read_text(encoding="utf-8")
    assert "A logit lens shows what the final norm and the head make" in page
    check = page[page.index("The lens at the last layer is the model&#39;s own answer") - 120 :][:300]
    assert '<li class="passed">' in check and "largest |Δlogit| 0, must be exactly 0" in check
    assert "A logit lens (final norm and head on the unpatched stream" in page
    assert f"{LENS} (" not in page[page.index("Methods text") : page.index("Software:")]  # its rates are no flips
    path = run / f"patching_records_{LENS}.jsonl"
    kept, config = path.read_text(), (run / "patching_config.json").read_text()
    without_hash = json.loads(config)
    del without_hash["experiments"][LENS]["files_sha256"]
    (run / "patching_config.json").write_text(json.dumps(without_hash))
    rows = [json.loads(line) for line in kept.splitlines()]
    rows[-1]["logits_patch"]["sad"] += 0.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(Results(run)).read_text(encoding="utf-8")
    path.write_text(kept)
    (run / "patching_config.json").write_text(config)
    check = page[page.index("The lens at the last layer is the model&#39;s own answer") - 120 :][:300]
    assert '<li class="failed">' in check and "|Δlogit| 0.5, must" in check
