"""A new intervention is one file: command, help, options, files and messages for mistakes come by themselves."""

import json
import textwrap

import pandas as pd
import pytest

from interventions import catalogue
from registry import catalogue as registry
from registry import template
from tests.test_cli import call, fails, rows

FEW = ("--max-pairs", "3", "--device", "cpu", "--layers", "0,3")
HALF = '''\
import nnsight, torch
from interventions import intervention

@intervention(control=True)
def first_half(lm, pair, layers, share=0.5):
    """Only the first part of the span is patched.

    share: how much of the span, from its start
    """
    n = max(1, round(share * pair.n_patched))
    span, donor_span = (slice(s.start, s.start + n) for s in (pair.a_span, pair.b_span))
    with lm.trace(pair.b):
        donor = nnsight.save({l: lm.hidden(l)[:, donor_span].clone() for l in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a):
            for l in group:
                lm.branch(l, span, donor[l])
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
'''


@pytest.fixture(autouse=True)
def no_plugins_left():
    yield
    registry._plugins.clear()
    catalogue.cache_clear()


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "idea.py"
    path.write_text(HALF)
    return path


def test_a_plugin_has_a_command_with_its_docstring_and_options(plugin):
    output = call("first-half", "--plugin", plugin, "--help")
    assert "Only the first part of the span is patched." in output
    assert "--share FLOAT" in output and "how much of the span, from its start" in output
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
    for engine in ("sweep", "stepwise"):
        call(
            "control", "--kind", "first-half", "--plugin", plugin, "--engine", engine, "--out", tmp_path / engine, *FEW
        )
    one, other = (pd.read_csv(tmp_path / e / "patching_metrics_first-half-prosody.csv") for e in ("sweep", "stepwise"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)


def test_new_writes_a_file_that_runs_as_it_is(tmp_path):
    call("new", "my-idea", "--in", tmp_path)
    out = tmp_path / "run"
    call("my-idea", "--plugin", tmp_path / "my_idea.py", "--out", out, *FEW)
    call("patch", "--kind", "prosody", "--out", out, *FEW)
    mine, main = (rows(out / f"patching_records_{name}.jsonl") for name in ("my-idea-prosody", "prosody"))
    assert [r["logits_patch"] for r in mine] == [r["logits_patch"] for r in main]
    assert "already" in fails("new", "my-idea", "--in", tmp_path, status=2)


def test_new_puts_the_file_among_the_interventions(tmp_path, monkeypatch):
    monkeypatch.setattr(template, "FOLDER", tmp_path)
    call("new", "here")
    assert (tmp_path / "here.py").exists()


@pytest.mark.parametrize("name", ["patch", "list", "not a name", "class", "_x"])
def test_new_refuses_names_that_are_taken_or_none(tmp_path, name):
    fails("new", name, "--in", tmp_path, status=2)
    assert not list(tmp_path.iterdir())


def test_list_shows_every_intervention_with_a_line():
    lines = call("list").strip().splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue())
    assert all(len(line.split()) > 5 for line in lines)


def mistaken(body):
    return (
        "import torch\nfrom interventions import intervention\n\n\n@intervention\ndef mistaken(lm, pair, layers):\n"
        '    """Wrong."""\n' + textwrap.indent(textwrap.dedent(body), "    ")
    )


MISTAKES = {
    "wrong shape": (
        """
        with lm.trace(pair.a):
            for layer in layers:
                lm.branch(layer, pair.a_span, torch.zeros(1, 2, 3))
            logits = lm.readout().save()
        return logits
        """,
        11,
        "a value of shape [1, 2, 3] cannot replace A's stream of shape",
    ),
    "layer out of order": (
        """
        with lm.trace(pair.a):
            for layer in (3, 0):
                lm.branch(layer, pair.a_span, lm.hidden(layer)[:1, pair.a_span])
            logits = lm.readout().save()
        return logits
        """,
        11,
        "in the order in which the model runs them",
    ),
    "forgot to save": (
        """
        with lm.trace(pair.a):
            for layer in layers:
                lm.branch(layer, pair.a_span, lm.hidden(layer)[:1, pair.a_span])
            logits = lm.readout()
        return logits
        """,
        13,
        "x = lm.readout().save()",
    ),
    "a return in the body": (
        """
        with lm.trace(pair.a):
            return lm.readout().save()
        """,
        10,
        "cannot return or yield",
    ),
    "a body that begins with try": (
        """
        with lm.trace(pair.a):
            try:
                logits = lm.readout().save()
            finally:
                pass
        return logits
        """,
        9,
        "cannot start with `try:`",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained_with_file_and_line(tmp_path, name):
    body, line, expected = MISTAKES[name]
    path = tmp_path / "mistaken.py"
    path.write_text(mistaken(body))
    message = fails("mistaken", "--plugin", path, "--out", tmp_path / "run", *FEW, "--engine", "sweep", status=1)
    assert f"mistaken.py:{line}:" in message and expected in message


def test_rows_that_do_not_fit_the_layers_are_explained(tmp_path):
    path = tmp_path / "mistaken.py"
    path.write_text(mistaken("with lm.trace(pair.a):\n    logits = lm.readout().save()\nreturn logits\n"))
    assert "expected a row at each of [0, 3]" in fails("mistaken", "--plugin", path, "--out", tmp_path, *FEW, status=1)


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("def f(:", 1, "not readable as Python"),
        ("x = 1", 2, "holds no function decorated"),
        ("@intervention\ndef f(lm, pair): pass", 1, "must take (lm, pair, layers)"),
        ("@intervention\ndef f(lm, pair, layers, k): pass", 1, "k has none"),
        ("@intervention\ndef f(lm, pair, layers, k=len): pass", 1, "plain values"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_explained(tmp_path, text, status, expected):
    path = tmp_path / "idea.py"
    path.write_text(text)
    assert expected in fails("list", "--plugin", path, status=status)


def test_an_alpha_that_would_be_ignored_is_refused(tmp_path):
    assert "dose takes no alpha" in fails("dose", "--alpha", "0.5", "--out", tmp_path / "run", *FEW, status=2)


def test_a_dose_outside_its_range_is_refused(tmp_path):
    line = fails("dose", "--alphas", "0.5,1.5", "--out", tmp_path / "run", *FEW, status=1)
    assert "alpha is 1.5" in line and "dose.py" in line


def test_a_plugin_that_is_missing_is_named():
    assert "no such file" in fails("list", "--plugin", "missing.py", status=2)
