"""What would change the results is noticed before an experiment goes on, and named; what would not is let through."""

import hashlib
import json
import re
import shutil

import pytest
from click.testing import CliRunner

from cli import cli
from tests import commands
from tests.commands import MODEL, NO_FIGURES
from tests.small import small_model
from voicepatch.errors import UserError
from voicepatch.paths import ROOT
from voicepatch.runs import executor, recorded
from voicepatch.store.directory import RunDir

PATCH = ("patch", "--no-need", "--kind", "prosody")
HOW = ("--max-pairs", "3", "--layers", "0-1", *MODEL, NO_FIGURES)
OF_THE_EXPERIMENT = {
    "alpha": (["--alpha", "0.5"], "patch_alpha was 1.0, is 0.5"),
    "layers": (["--layers", "0-2"], "layers_to_patch was [0, 1], is [0, 1, 2]"),
    "seed": (["--seed", "7"], "pair_sampling_seed was 42, is 7"),
    "dtype": (["--dtype", "bfloat16"], "dtype was float32, is bfloat16"),
    "engine": (["--engine", "stepwise"], "is stepwise"),
    "pairs": (["--max-pairs", "4"], "max_pairs_prosody was 3, is 4"),
    "speakers": (["--any-speaker"], "same_speaker was True, is False"),
    "directions": (["--both-directions"], "both_directions was False, is True"),
    "selection": (["--where", "text_type=explicit"], "where was [], is ['text_type=explicit']"),
}


def call(out, *words, status=0):
    return commands.call(*PATCH, *HOW, "--out", out, *words, status=status).splitlines()[-1]


def files(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of which the last pair is missing."""
    out = tmp_path_factory.mktemp("runs") / "run"
    call(out)
    interrupt(out)
    return out


def interrupt(out):
    records, config = out / "patching_records_prosody.jsonl", out / "patching_config.json"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:-2]))
    content = json.loads(config.read_text(encoding="utf-8"))
    content["experiments"]["prosody"]["finished"] = False
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


@pytest.mark.parametrize("setting", OF_THE_EXPERIMENT)
def test_another_setting_is_refused_by_name_and_changes_no_file(made, setting):
    words, change = OF_THE_EXPERIMENT[setting]
    before = files(made)
    line = call(made, *words, status=2)
    assert "begun with other settings" in line and change in line and "--overwrite" in line
    assert files(made) == before


def test_another_version_of_a_library_that_computes_is_refused(made, monkeypatch):
    real = recorded.version
    monkeypatch.setattr(recorded, "version", lambda name: "0.0" if name == "torch" else real(name))
    assert f"versions.torch was {real('torch')}, is 0.0" in call(made, status=2)


def test_another_tolerance_of_the_engines_is_refused(made, monkeypatch):
    monkeypatch.setattr(recorded, "NOISE", dict.fromkeys(recorded.NOISE, 0.5))
    assert "engine_tolerance was 0.001, is 0.5" in call(made, status=2)


def test_other_code_of_an_intervention_is_refused_but_not_another_comment(tmp_path):
    plugin = tmp_path / "mine.py"
    text = (ROOT / "interventions" / "patch.py").read_text(encoding="utf-8")
    text = text.replace("def patch(", "def mine(").replace("@intervention(main=True)", "@intervention")
    plugin.write_text(text, encoding="utf-8")
    words = ["mine", "--plugin", str(plugin), *HOW, "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(cli, words).exit_code == 0
    plugin.write_text(text + "# another comment\n", encoding="utf-8")
    assert "done already" in CliRunner().invoke(cli, words).output
    plugin.write_text(text + "\nother = 1\n", encoding="utf-8")
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and "code_sha256 was" in result.output.splitlines()[-1]


def test_another_file_that_an_experiment_imports_or_an_option_names_is_refused(tmp_path):
    plugin, helper, named = tmp_path / "with_helper.py", tmp_path / "own_helper.py", tmp_path / "directions.txt"
    text = (ROOT / "interventions" / "patch.py").read_text(encoding="utf-8")
    text = text.replace("def patch(lm, pair, layer, ", 'def with_helper(lm, pair, layer, directions="none", ')
    text = text.replace("    with lm.trace(pair.b):", "    from own_helper import same\n\n    with lm.trace(pair.b):")
    text = text.replace("a_at], donor, alpha)", "a_at], same(donor), alpha)")
    text = text.replace("@intervention(main=True)", "@intervention\n@torch.no_grad()")
    assert text.count("same(") == 1 and "no_grad" in text
    plugin.write_text(text, encoding="utf-8")
    helper.write_text("def same(x):\n    return x\n", encoding="utf-8")
    named.write_text("1", encoding="utf-8")
    words = ["with-helper", "--plugin", str(plugin), *HOW, "--out", str(tmp_path / "run")]
    words += ["--directions", str(named)]
    first = CliRunner().invoke(cli, words)
    assert first.exit_code == 0, first.output
    of_run = json.loads((tmp_path / "run" / "patching_config.json").read_text())["experiments"]["with-helper-prosody"]
    assert of_run["option_files"] == {str(named): hashlib.sha256(b"1").hexdigest()} and of_run["plugin"] == str(plugin)
    assert "done already" in CliRunner().invoke(cli, words).output
    for path, change in (
        (plugin, text.replace("same(donor)", "same(donor) * 1")),
        (helper, "def same(x):\n    return x + 0\n"),
        (named, "2"),
    ):
        before = path.read_text(encoding="utf-8")
        path.write_text(change, encoding="utf-8")
        result = CliRunner().invoke(cli, words)
        what = "option_files." if path == named else "code_sha256 was"
        assert result.exit_code == 2 and what in result.output.splitlines()[-1], result.output
        path.write_text(before, encoding="utf-8")
    assert "done already" in CliRunner().invoke(cli, words).output


def test_another_model_of_the_same_name_is_refused(made, tmp_path):
    model = tmp_path / small_model().name
    shutil.copytree(small_model(), model)
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (model / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    line = call(made, "--model", model, status=1)
    assert re.search(r"another model \(sha256 was [0-9a-f]{12}, is [0-9a-f]{12}\)", line)


def test_another_prompt_is_refused(made, monkeypatch):
    identity = executor.LocalExecutor.identity

    def with_another_system_turn(self):
        return identity(self) | {"prompt": identity(self)["prompt"] | {"system": "Be brief."}}

    monkeypatch.setattr(executor.LocalExecutor, "identity", with_another_system_turn)
    assert "another prompt (system was You are" in call(made, status=1)


def test_another_task_is_refused_before_the_model_is_loaded(made, tmp_path):
    task = tmp_path / "emotion.yaml"
    task.write_text(
        (ROOT / "tasks" / "emotion.yaml").read_text(encoding="utf-8").replace("is the emotion", "emotion is")
    )
    line = call(made, "--task", task, "--model", small_model(), status=1)
    assert "another task (question was What is the emotion" in line and "loading" not in line


@pytest.mark.parametrize("words", [["--store-mb", "0"], ["--max-rows", "1"], ["--overwrite"]], ids=lambda w: w[0])
def test_what_changes_no_result_lets_it_go_on(made, tmp_path, words):
    """`--overwrite` too: the same command, called again after an interruption, must not begin anew."""
    out = tmp_path / "run"
    shutil.copytree(made, out)
    kept = (out / "patching_records_prosody.jsonl").read_bytes()
    call(out, *words)
    records = (out / "patching_records_prosody.jsonl").read_bytes()
    assert records.startswith(kept) and records.count(b"\n") == 6
    assert not list(out.glob("replaced-*"))


def test_what_draws_the_figures_may_be_another_version(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "run")
    real = recorded.version
    monkeypatch.setattr(recorded, "version", lambda name: "0.0" if name in ("altair", "pandas") else real(name))
    call(tmp_path / "run")


def test_overwriting_keeps_the_old_experiment_and_what_it_ran_with(made, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(made, out)
    before = files(out)
    call(out, "--overwrite", "--alpha", "0.5")
    aside = files(out / "replaced-1")
    for name in ("patching_config.json", "pair_list_prosody.jsonl", "patching_records_prosody.jsonl"):
        assert aside[name] == before[name]
    assert RunDir(out).config()["experiments"]["prosody"]["patch_alpha"] == 0.5


def test_interrupted_after_its_last_pair_it_is_finished_all_the_same(made, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(made, out)
    call(out)
    config = RunDir(out).config()
    interrupted = json.loads(json.dumps(config))
    interrupted["experiments"]["prosody"]["finished"] = False
    RunDir(out).write_json("patching_config.json", interrupted)
    call(out)
    assert RunDir(out).config() == config


def test_a_pair_report_without_a_model_leaves_that_of_the_experiment(made):
    before = files(made)
    result = CliRunner().invoke(cli, ["pairs", "--kind", "prosody", "--seed", "7", "--out", str(made)])
    assert result.exit_code == 0 and "unchanged" in result.output.splitlines()[-1]
    assert files(made) == before


def test_a_configuration_that_leads_elsewhere_is_refused(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (run.path / "patching_config.json").write_text('{"experiments": {"../../evil": {}}}', encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        run.config()
