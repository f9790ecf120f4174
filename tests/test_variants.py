"""A new intervention is one file: command, help, options, files and messages for mistakes come by themselves."""

import errno
import json
import os
import re
import shlex

import pandas as pd
import pytest

from interventions import catalogue
from tests.analysis.made_run import Page, write_report
from tests.commands import MODEL, NO_FIGURES, call, fails, rows
from tests.small import small_model
from voicepatch.analysis.results import Results
from voicepatch.paths import ROOT
from voicepatch.registry import sources
from voicepatch.registry.catalogue import add_plugin, find, reset_plugins
from voicepatch.report.experiments import read_run
from voicepatch.report.reproduce import commands

FEW_OF_DEMO = ("--max-pairs", "3", "--layers", "0,3", "--device", "cpu")
FEW = (*FEW_OF_DEMO[:4], *MODEL)
HALF = '''\
from interventions import intervention

@intervention(control=True)
def first_half(lm, pair, layer, share=0.5):
    """Only the first part of the span is patched.

    share: how much of it
    """
    n = max(1, round(share * pair.n_patched))
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, pair.b_span.start : pair.b_span.start + n].save()
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span.start : pair.a_span.start + n] = donor
        logits = lm.logits.save()
    return logits
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "idea.py"
    path.write_text(HALF)
    return path


def test_a_plugin_has_a_command_with_its_docstring_and_options(plugin):
    output = call("first-half", "--plugin", plugin, "--help")
    assert "Only the first part of the span is patched." in output
    assert "--share FLOAT" in output and "how much of it" in output
    assert "first-half    control" in call("list", f"--plugin={plugin}")


def test_a_plugin_writes_every_file_and_its_options_reach_it(plugin, tmp_path):
    out = tmp_path / "run"
    call("first-half", "--plugin", plugin, "--share", "0.25", "--out", out, *FEW)
    for file in ("patching_metrics", "flip_rate_curve", "delta_logit_curve", "pair_list", "patching_records"):
        assert list(out.glob(f"{file}_first-half-prosody.*")), file
    records = rows(out / "patching_records_first-half-prosody.jsonl")
    assert all(record["n_patched"] == max(1, round(0.25 * min(record["len_a"], record["len_b"]))) for record in records)
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]["first-half-prosody"]
    assert ran["options"] == {"share": 0.25}
    assert "done already" in call("first-half", "--plugin", plugin, "--share", "0.25", "--out", out, *FEW)
    assert "options.share was 0.25, is 0.5" in fails("first-half", "--plugin", plugin, "--out", out, *FEW, status=2)


def test_control_takes_a_plugin_by_name_and_engines_agree(plugin, tmp_path):
    words = ("control", "--kind", "first-half", "--plugin", plugin, *FEW)
    for engine in ("sweep", "stepwise"):
        call(*words, "--engine", engine, "--out", tmp_path / engine, NO_FIGURES)
    one, other = (rows(tmp_path / e / "patching_records_first-half-prosody.jsonl") for e in ("sweep", "stepwise"))
    assert [r["pred_patch"] for r in one] == [r["pred_patch"] for r in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine["logits_patch"] == pytest.approx(theirs["logits_patch"], abs=1e-4)


def test_new_writes_a_file_that_runs_as_it_is(tmp_path):
    call("new", "my-idea", "--in", tmp_path)
    out = tmp_path / "run"
    call("my-idea", "--plugin", tmp_path / "my_idea.py", "--out", out, *FEW, NO_FIGURES)
    call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW, NO_FIGURES)
    mine, main = (rows(out / f"patching_records_{name}.jsonl") for name in ("my-idea-prosody", "prosody"))
    assert [r["logits_patch"] for r in mine] == [r["logits_patch"] for r in main]
    assert "already" in fails("new", "my-idea", "--in", tmp_path, status=2)


def test_the_documented_commands_work_beside_a_run_with_other_pairs(tmp_path, monkeypatch):
    docs = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")
    lines = [line for line in docs.splitlines() if line.startswith("python cli.py")]
    new, run, of_your_own = (shlex.split(line, comments=True)[2:] for line in lines[:3])
    monkeypatch.chdir(tmp_path)
    few = ("--layers", "0,3", *MODEL)
    call("patch", "--no-need", "--kind", "prosody", "--max-pairs", "2", *few, NO_FIGURES)
    said = call(*new, "--in", tmp_path)
    tried = shlex.split(said.splitlines()[-1].partition("python cli.py ")[2])
    assert tried == [run[0], "--plugin", str(tmp_path / "my_idea.py"), *run[1:]]
    call(*tried, *few, NO_FIGURES)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "my_idea.py").rename(tmp_path / "path" / "to" / "file.py")
    reset_plugins()
    call(*of_your_own, "--max-pairs", "2", *few, NO_FIGURES)
    assert (tmp_path / "results" / "my-idea" / "patching_config.json").exists()


@pytest.mark.parametrize("name", ["first_half", "entropy"])
def test_the_documented_plugins_run_with_the_documented_commands(tmp_path, monkeypatch, name):
    docs = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")
    (tmp_path / f"{name}.py").write_text(re.search(rf"```python\n(# {name}\.py\n.*?)```", docs, re.DOTALL)[1])
    (line,) = re.findall(rf"^python cli.py (.* --plugin {name}\.py .*)$", docs, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    call(*shlex.split(line), *FEW)
    tables = (tmp_path / "results").glob("*/patching_metrics_*.csv")
    (table,) = [table for table in tables if "need" not in table.name and "_by_" not in table.name]
    metrics = pd.read_csv(table)
    if name == "entropy":
        assert metrics["entropy_mean"].between(0, 1.61).all()
        assert (metrics["entropy_mean_low"] <= metrics["entropy_mean_high"]).all()
    else:
        assert sorted(metrics["share"].unique()) == [0.25, 0.5]


def test_the_command_that_the_report_prints_makes_the_run_again(tmp_path):
    folder = tmp_path / "a folder; of $mine"
    folder.mkdir()
    path = folder / "idea.py"
    path.write_text(HALF.replace("share=0.5", 'share=0.5, word="a", alpha=0.5'))
    out, again = tmp_path / "run", tmp_path / "again"
    given = ("--share", "0.25,0.5", "--word", "b; c", "--alpha", "1", "--any-speaker")
    call("first-half", "--plugin", path, *given, "--out", out, *FEW, NO_FIGURES)
    (line,) = commands(read_run(Results(out)))
    words = shlex.split(line)
    assert words[:2] == ["python", "cli.py"]
    reset_plugins()
    call(*(str(small_model()) if word == "MODEL" else word for word in words[2:]), "--out", again, NO_FIGURES)
    config, other = (json.loads((run / "patching_config.json").read_text()) for run in (out, again))
    assert config == other and config["experiments"]["first-half-prosody"]["plugin"] == str(path)
    name = "patching_records_first-half-prosody.jsonl"
    assert (out / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_new_on_a_full_or_forbidden_disk_leaves_nothing_and_can_be_called_again(tmp_path, monkeypatch, error):
    def full(descriptor):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        message = fails("new", "my-idea", "--in", tmp_path, status=1)
    way_out = f"({os.strerror(error)}); make room, see to its folder and permissions, or pass another --in"
    assert message == f"error: {tmp_path / 'my_idea.py'}: cannot be written {way_out}" and not list(tmp_path.iterdir())
    assert "written: " in call("new", "my-idea", "--in", tmp_path)


def test_both_spellings_of_a_name_work(plugin):
    assert "python cli.py second-half --plugin" in call("new", "second_half", "--in", plugin.parent)
    for name in ("first-half", "first_half"):
        assert "Only the first part" in call(name, "--plugin", plugin, "--help")


def test_new_puts_the_file_among_the_interventions(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_folders", {tmp_path: "interventions"})
    catalogue.cache_clear()
    call("new", "here")
    catalogue.cache_clear()
    assert (tmp_path / "here.py").exists()


@pytest.mark.parametrize("name", ["patch", "list", "not a name", "class", "_x"])
def test_new_refuses_names_that_are_taken_or_none(tmp_path, name):
    fails("new", name, "--in", tmp_path, status=2)
    assert not list(tmp_path.iterdir())


def test_list_shows_every_intervention_with_a_line():
    lines = call("list").strip().splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue())
    assert all(len(line.split()) > 5 for line in lines)


def test_a_mistake_is_explained_with_file_and_line_and_what_to_do(tmp_path):
    path = tmp_path / "mistaken.py"
    path.write_text(HALF.replace("].save()", "]").replace("first_half", "mistaken"))
    message = fails("mistaken", "--plugin", path, "--out", tmp_path / "run", *FEW, status=1)
    assert "mistaken.py:13:" in message and "only what was saved outlives it" in message


def test_a_corrected_experiment_needs_no_overwrite(plugin, tmp_path):
    mistaken = tmp_path / "mistaken.py"  # in a file of its own: nnsight keeps what it has read of one
    mistaken.write_text(HALF.replace("= donor", "= donor * nothing"))
    words = ("--out", tmp_path / "run", *FEW)
    assert "name 'nothing' is not defined" in fails("first-half", "--plugin", mistaken, *words, status=1)
    reset_plugins()
    call("first-half", "--plugin", plugin, *words, NO_FIGURES)


def test_an_experiment_that_moves_nothing_ends_with_status_3(tmp_path):
    path = tmp_path / "still.py"
    path.write_text(HALF.replace("= donor", "*= 1").replace("first_half", "still"))
    line = fails("still", "--plugin", path, "--out", tmp_path / "run", *FEW, status=3)
    assert "changes no value of any pair" in line
    assert not list((tmp_path / "run").glob("patching_records*"))


def test_what_cannot_be_planned_runs_as_it_is_written_and_says_so_once(plugin, tmp_path):
    plugin.write_text(HALF.replace("return logits", "return logits + 0"))
    output = call("first-half", "--plugin", plugin, "--out", tmp_path / "run", *FEW, NO_FIGURES)
    assert (
        output.count("first-half runs as it is written") == 1
        and "idea.py:15: it computes with the patched logits" in output
    )


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("def f(:", 1, "not readable as Python"),
        ("x = 1", 2, "registers nothing; decorate a function with one of @intervention"),
        ("@intervention\ndef f(lm, pair): pass", 1, "must take (lm, pair, layer)"),
        ("@intervention\ndef f(lm, pair, layers): pass", 1, "must take (lm, pair, layer)"),
        ("@intervention\ndef f(lm, pair, layer, k): pass", 1, "k has none"),
        ("@intervention\ndef f(lm, pair, layer, k=len): pass", 1, "plain value"),
        ("@intervention\ndef f(lm, pair, layer, seed=1): pass", 2, "an option seed already"),
        ("@intervention\ndef f(lm, pair, layer, target=1): pass", 1, "a column of the records"),
        ("@intervention\ndef patch(lm, pair, layer): pass", 2, "is an intervention already"),
        ("@intervention\ndef report(lm, pair, layer): pass", 2, "is a command of the program"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_explained(tmp_path, text, status, expected):
    path = tmp_path / "idea.py"
    path.write_text(text)
    assert expected in fails("list", "--plugin", path, status=status)


def test_an_alpha_that_would_be_ignored_is_refused(tmp_path):
    words = ("--alpha", "0.5", "--out", tmp_path / "run", *FEW)
    assert "No such option '--alpha'" in fails("steer", *words, status=2)
    assert "steer takes no alpha" in fails("control", "--kind", "steer", *words, status=2)


MAKER = "def make(sample, clips):\n    return {}\n\n" + HALF.replace("control=True", "control=True, pairs=make")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MAKER.format("[1 / 0]"), ":2: ZeroDivisionError"),
        (MAKER.format("sample.pairs * 2"), "twice"),
        (MAKER.format("[]"), "one at least"),
        (MAKER.format("['a']"), "one at least"),
        (MAKER.format("None"), "TypeError"),
        (MAKER.format("sample.pairs[1:]"), "gives other recipients than the main experiment"),
        ("1 / 0\n" + HALF, "idea.py:1: cannot be imported (ZeroDivisionError"),
        ("import sys\nsys.exit(5)\n" + HALF, "idea.py:2: cannot be imported (SystemExit"),
        (HALF.replace("    n = max", "    raise SystemExit(5)\n    n = max"), "idea.py:9: ends the program"),
    ],
)
def test_code_of_a_plugin_that_fails_is_named_and_nothing_is_measured(plugin, tmp_path, text, expected):
    plugin.write_text(text)
    line = fails("first-half", "--plugin", plugin, "--out", tmp_path / "run", *FEW, status=1)
    assert "idea.py:" in line and expected in line
    assert not list((tmp_path / "run").glob("patching_records*"))


def test_a_control_with_recipients_of_its_own_declares_them(plugin, tmp_path):
    own = MAKER.format("sample.pairs[1:]").replace("control=True,", 'control=True, recipients="own",')
    plugin.write_text(own)
    call("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", *FEW, NO_FIGURES)
    call("first-half", "--plugin", plugin, "--out", tmp_path / "run", *FEW, NO_FIGURES)
    assert len(rows(tmp_path / "run" / "pair_list_first-half-prosody.jsonl")) == 2


def test_a_dose_that_is_the_default_of_a_plugin_is_the_one_that_runs(plugin):
    plugin.write_text(HALF.replace("share=0.5", "alpha=0.5"))
    entry = add_plugin(plugin) or find("first-half")
    assert entry.options["alpha"].default == 0.5
    assert "[default: 0.5; 0<x<=1]" in call("first-half", "--plugin", plugin, "--help")


def test_a_plugin_that_is_missing_is_named():
    assert "no such file" in fails("list", "--plugin", "missing.py", status=2)


OF_DONORS = (
    "activation patching",
    "written into A's run",
    "causal path",
    "We located the decision",
    "We used activation patching",
    "do(activation = B)",
    "the donor",
    "hands over",
    "alpha · B",
    "Patching shows until which layer",
)
ABLATION = """\
from interventions import intervention

@intervention
def emptied(lm, pair, layer):
    \"\"\"A's audio span is emptied.\"\"\"
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = 0
        logits = lm.logits.save()
    return logits{}
"""


def report_of(run):
    return Page(write_report(run)).text.replace("\N{NO-BREAK SPACE}", " ")


def test_of_ablations_the_report_says_what_they_did_and_speaks_of_no_donor(tmp_path):
    plugin, out = tmp_path / "ablation.py", tmp_path / "run"
    plugin.write_text(ABLATION.format(" + 0"))  # the engine cannot know this, so it runs as it is written
    call("emptied", "--plugin", plugin, "--out", out, *FEW_OF_DEMO, NO_FIGURES)
    call("noise", "--out", out, *FEW_OF_DEMO, NO_FIGURES)
    checked = json.loads((out / "sanity_check_engine.json").read_text())
    assert [entry["reads_donor"] for entry in checked.values()] == [False, False]
    text = report_of(out)
    assert not [words for words in OF_DONORS if words in text]
    for words in (
        "The run has, at 2 of its 10 layers:",
        "emptied-prosody (A's audio span is emptied; written: output of the block (residual stream))",
        "noise-prosody (Gaussian noise with the norm of A's own stream replaces the span",
        "A is the clip whose run is changed; B is the other clip of the pair.",
        "Where emptied-prosody or noise-prosody changes A's answer, the changed place has a causal effect",
        "We studied opens2s-demo (10 decoder layers",
        "as written, one trace a layer, float32 on cpu (emptied-prosody)",
        "engine tail, float32 on cpu (noise-prosody)",
        "as written (",
        "engine tail, compared with stepwise on",
        "tail (ran as written)",
    ):
        assert words in text, words
    of_noise = text[text.rindex("noise-prosody (Gaussian") :]
    assert of_noise.partition("): ")[2].startswith("A's answer changed in ")  # noise is of no target


def test_of_a_lens_alone_the_report_says_that_nothing_is_changed(tmp_path):
    out = tmp_path / "run"
    call("lens", "--out", out, *FEW, NO_FIGURES)
    text = report_of(out)
    assert not [words for words in OF_DONORS if words in text]
    assert (
        "lens-prosody (The final norm and the head read the unpatched stream" in text and "nothing is written)" in text
    )
    assert "No experiment of this run changes anything in the model" in text and "flip_to_target_rate is" not in text
    assert (
        "The lens changes nothing, so it is no evidence of a cause." in text
        and "There is no patched pair to show." in text
    )


def test_of_a_control_with_a_donor_alone_the_report_names_the_donor(tmp_path):
    out = tmp_path / "run"
    for kind in ("random", "self"):
        call("control", "--kind", kind, "--out", out, *FEW, NO_FIGURES)
    checked = json.loads((out / "sanity_check_engine.json").read_text())
    assert {name: entry["reads_donor"] for name, entry in checked.items()} == {"random-prosody": True, "self": False}
    text = report_of(out)
    assert "In random-prosody, B is the donor: what is written into A's run is made from B's activations." in text
    assert "written: output of the block (residual stream); from B's activations)" in text
    assert "We studied opens2s-small" in text and "We used activation patching" not in text
    of_self = r"self \(A's own residual stream is written back into A: no answer may change; [^.]*\)"
    assert re.search(rf"{of_self}: A's answer changed in none of 3 clips\.", text)
