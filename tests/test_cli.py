"""The program from the outside, on the demo: what it writes, and how it fails."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from cli import cli
from tests.commands import FEW, MODEL, NO_FIGURES, call, fails, rows
from voicepatch.engine.engine import Engine
from voicepatch.errors import CHECK_FAILED, CannotWrite, UserError
from voicepatch.models.devices import DTYPES
from voicepatch.paths import DEMO_DATA, DEMO_MODEL, ROOT
from voicepatch.types.settings import DECLARED

LAYERS = ("--layers", "0,2-3")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW)
    return out


def test_patch_writes_every_file_of_a_run(run):
    names = {path.name for path in run.iterdir()}
    figures = ["flip_rate_curve", "delta_logit_curve", "recovery_curve", "pair_heat_map", "label_matrix"]
    assert names == {
        "patching_config.json",
        "tokenization_report.json",
        "pair_construction_report.json",
        "sanity_check_audio_span.json",
        "sanity_check_model.json",
        "sanity_check_self_patch.json",
        "sanity_check_engine.json",
        "sanity_check_sounds.json",
        "pair_list_prosody.jsonl",
        "patching_records_prosody.jsonl",
        "patching_metrics_prosody.csv",
        "statistics_prosody.json",
        "report.html",
        "patching_metrics_prosody_by_text_type.csv",
        *(f"{figure}_prosody.{form}" for figure in [*figures, "unpatched_confusion"] for form in ("png", "svg", "txt")),
        *(f"flip_rate_curve_prosody_by_text_type.{form}" for form in ("png", "svg", "txt")),
    }


def test_the_files_agree_with_each_other(run):
    config = json.loads((run / "patching_config.json").read_text())
    pairs, records = rows(run / "pair_list_prosody.jsonl"), rows(run / "patching_records_prosody.jsonl")
    layers = list(range(config["model"]["n_layers"]))
    assert config["experiments"]["prosody"]["finished"]
    assert [(r["pair_id"], r["layer"]) for r in records] == [(p["pair_id"], layer) for p in pairs for layer in layers]
    metrics = pd.read_csv(run / "patching_metrics_prosody.csv")
    assert metrics["layer"].tolist() == layers and set(metrics["n_pairs"]) == {5}
    tokens = json.loads((run / "tokenization_report.json").read_text())["labels"]
    assert [label for label in tokens if tokens[label]["multi_token"]] == ["angry", "surprised"]
    for check in ("audio_span", "self_patch"):
        assert json.loads((run / f"sanity_check_{check}.json").read_text())["passed"]


def test_the_same_command_gives_the_same_files_and_the_other_engine_the_same_answers(run, tmp_path):
    call("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "again", *FEW)
    for file in run.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name
    call(
        "patch",
        "--no-need",
        "--kind",
        "prosody",
        "--out",
        tmp_path / "stepwise",
        "--engine",
        "stepwise",
        *FEW,
        NO_FIGURES,
    )
    here, there = (rows(path / "patching_records_prosody.jsonl") for path in (run, tmp_path / "stepwise"))
    for one, other in zip(here, there, strict=True):
        assert one["pred_patch"] == other["pred_patch"]
        assert one["logits_patch"] == pytest.approx(other["logits_patch"], abs=1e-4)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    records = out / "patching_records_prosody.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[: len(lines) // 2]) + lines[0][:40])
    config = json.loads((out / "patching_config.json").read_text())
    config["experiments"]["prosody"] = {
        key: value for key, value in config["experiments"]["prosody"].items() if key not in ("n_pairs", "n_failed")
    } | {"finished": False}
    (out / "patching_config.json").write_text(json.dumps(config))
    call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW)
    for file in run.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_finished_experiment_is_not_run_again_unless_overwritten(run):
    assert "done already" in call("patch", "--no-need", "--kind", "prosody", "--out", run, *FEW, NO_FIGURES)
    before = (run / "patching_records_prosody.jsonl").read_bytes()
    assert "alpha was 1.0, is 0.5" in fails(
        "patch", "--no-need", "--kind", "prosody", "--out", run, "--alpha", 0.5, *FEW, status=2
    )
    assert (run / "patching_records_prosody.jsonl").read_bytes() == before


def test_another_experiment_that_does_not_hold_together_is_told_at_the_end(run, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    config = json.loads((out / "patching_config.json").read_text())
    settings = config["experiments"]["prosody"] | {"kind": "semantic", "max_pairs_semantic": 5}
    config["experiments"]["semantic"] = settings
    (out / "patching_config.json").write_text(json.dumps(config))
    shown = []
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda results, name: shown.append(name))
    line = fails("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW, status=1)
    assert shown == ["prosody"] and "pair_list_semantic.jsonl: is not there" in line
    assert "semantic cannot be shown" in (out / "report.html").read_text(encoding="utf-8")


def test_patch_and_control_meet_in_one_run(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    said = call("control", "--kind", "self", "--out", out, *MODEL)
    mine, main = rows(out / "pair_list_self.jsonl"), rows(run / "pair_list_prosody.jsonl")
    assert [(p["clip_a"], p["clip_b"], p["target"]) for p in mine] == [
        (p["clip_a"], p["clip_a"], p["target"]) for p in main
    ]
    assert not any(record["flip_from_base"] for record in rows(out / "patching_records_self.jsonl"))
    assert (out / "flip_rate_curve_self.png").exists()
    verdict = f"found: none of {len(rows(out / 'patching_records_self.jsonl'))} patched answers changed."
    assert f"Control self: as expected. Expected: no answer changes at any layer; {verdict}" in said
    assert f"as expected. Expected: no answer changes at any layer; {verdict}" in (out / "report.html").read_text(
        "utf-8"
    )


def test_a_control_shadows_the_main_experiment_as_it_ran(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    call("control", "--kind", "random", "--out", out, *MODEL)
    mine, main = rows(out / "pair_list_random-prosody.jsonl"), rows(run / "pair_list_prosody.jsonl")
    assert [(p["clip_a"], p["target"]) for p in mine] == [(p["clip_a"], p["target"]) for p in main]
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]["random-prosody"]
    assert (ran["max_pairs_prosody"], ran["pair_sampling_seed"]) == (5, 42)
    report = "pair_construction_report.json"
    assert (out / report).read_bytes() == (run / report).read_bytes()
    assert (out / "controls_prosody.png").exists()
    metrics = pd.read_csv(out / "patching_metrics_random-prosody.csv")
    assert {"to_donor_prosody_rate", "to_donor_semantic_rate"} <= set(metrics)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--seed", "7"), "--seed"),
        (("--max-pairs", "3"), "--max-pairs"),
        (("--any-speaker",), "--any-speaker"),
        (("--both-directions",), "--both-directions"),
        (("--alpha", "0.5"), "--alpha"),
        (("--alpha", "0.5,1"), "--alpha"),
        (("--layers", "0,2-3"), "--layers"),
        (("--dtype", "bfloat16"), "--dtype"),
    ],
)
def test_a_control_that_is_told_otherwise_is_refused_by_name(run, monkeypatch, words, flag):
    monkeypatch.setattr("voicepatch.commandline.loading.load_model", lambda options: 1 / 0)
    before = {path: path.read_bytes() for path in run.iterdir()}
    for control in (["suffix"], ["control", "--kind", "random"], ["control", "--kind", "all"]):
        line = fails(*control, "--out", run, *words, status=2)
        assert line.startswith(f"error: {flag}: ") and "runs as the prosody experiment of" in line
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_control_takes_dose_layers_and_dtype_of_the_main_experiment(tmp_path):
    out = tmp_path / "run"
    how = ("--seed", "3", "--alpha", "0.5,1", "--dtype", "bfloat16", "--max-pairs", "2")
    first = call("random", "--out", out, *MODEL, "--max-pairs", "2", *LAYERS, NO_FIGURES)
    assert "warning" not in first
    said = call("patch", "--no-need", "--kind", "prosody", "--out", out, *MODEL, *LAYERS, *how, NO_FIGURES)
    assert "random-prosody is there already, with another pair_sampling_seed, dtype, patch_alpha" in said
    call("control", "--kind", "suffix", "--out", out, *MODEL, "--seed", "3", NO_FIGURES)
    call("steer", "--out", out, *MODEL, "--layers", "1", NO_FIGURES)  # no control, so its curve is its own
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]
    keys = ("patch_alpha", "layers_to_patch", "dtype", "align", "pair_sampling_seed", "max_pairs_prosody")
    assert [ran["suffix-prosody"][key] for key in keys] == [ran["prosody"][key] for key in keys]
    assert [ran["suffix-prosody"][key] for key in keys[:3]] == [[0.5, 1.0], [0, 2, 3], "bfloat16"]
    assert (ran["steer-prosody"]["layers_to_patch"], ran["steer-prosody"]["pair_sampling_seed"]) == ([1], 3)
    line = fails("steer", "--out", out, *MODEL, "--seed", "4", status=2)
    assert line.startswith("error: --seed: ")


@pytest.fixture
def small(tmp_path):
    """Three texts of the demo in five voices: none has a second clip with both labels, so no same-label donor."""
    folder = tmp_path / "small"
    folder.mkdir()
    texts = [json.loads(line) for line in (DEMO_DATA / "text.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [text for text in texts if text["text_id"] in {f"{of}_explicit_1" for of in ("neutral", "happy", "sad")}]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, texts)))
    for file in DEMO_DATA.glob("*/*"):
        if file.stem in {text["text_id"] for text in texts}:
            (folder / file.parent.name).mkdir(exist_ok=True)
            shutil.copy(file, folder / file.parent.name)
    return folder


ALL = ("control", "--kind", "all", "--max-pairs", "2", "--layers", "0", *MODEL)
CONTROLS = {
    "self",
    *(f"{name}-prosody" for name in ("direction", "no-conflict", "non-audio", "random", "suffix")),
}


def test_a_control_that_the_data_cannot_have_is_named_beforehand_and_the_others_run(small, tmp_path):
    out = tmp_path / "run"
    said = call(*ALL, "--data", small, "--out", out, status=1)
    why = "same-label cannot run: control same-label: no clip can be the donor for "
    assert said.index(f"warning: {why}") < said.index("loading ")
    assert said.strip().splitlines()[-1].startswith(f"error: {why}")
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]
    assert set(ran) == CONTROLS and all(of["finished"] for of in ran.values())
    assert "suffix-prosody" in (out / "report.html").read_text(encoding="utf-8")
    line = fails("same-label", "--data", small, "--out", tmp_path / "one", *FEW, status=1)
    assert "no clip can be the donor" in line and not (tmp_path / "one" / "patching_config.json").exists()


@pytest.mark.parametrize(
    ("error", "status", "after"), [(UserError, 1, True), (CannotWrite, 1, False), (None, 3, False)]
)
def test_a_control_that_the_data_end_does_not_end_the_others_but_a_full_disk_and_a_check_do(
    small, tmp_path, monkeypatch, error, status, after
):
    from voicepatch.runs import experiment as module

    run_experiment = module.run_experiment

    def failing(place, dataset, run, experiment, *rest):
        if experiment.name == "no-conflict":
            raise error("a clip cannot be read") if error else UserError("check failed", CHECK_FAILED)
        return run_experiment(place, dataset, run, experiment, *rest)

    monkeypatch.setattr(module, "run_experiment", failing)
    said = call(*ALL, "--data", small, "--out", tmp_path / "run", NO_FIGURES, status=status)
    ran = json.loads((tmp_path / "run" / "patching_config.json").read_text())["experiments"]
    assert set(ran) == (CONTROLS - {"no-conflict-prosody"} if after else {"self", "direction-prosody"})
    assert ("error: no-conflict ended early: a clip cannot be read" in said) == after


def test_the_cost_and_the_layers_are_said_before_the_run(tmp_path):
    output = call("patch", "--no-need", "--kind", "semantic", "--out", tmp_path / "run", *FEW, *LAYERS, NO_FIGURES)
    assert "5 pairs × (3 + 2) = 25 forward passes" in output
    assert "audio spans" in output and "100% of 6 answers are unchanged" in output
    records = rows(tmp_path / "run" / "patching_records_semantic.jsonl")
    assert [record["layer"] for record in records[:3]] == [0, 2, 3]


def test_a_sweep_of_doses_is_one_experiment_with_a_line_for_each_layer_and_dose(tmp_path):
    out = tmp_path / "run"
    words = ["patch", "--no-need", "--kind", "prosody", "--alpha", "0.25,1", "--out", out, *FEW, *LAYERS]
    assert "5 pairs × (3 × 2 + 2) = 40 forward passes" in call(*words)
    metrics = pd.read_csv(out / "patching_metrics_prosody.csv")
    assert sorted(zip(metrics["layer"], metrics["patch_alpha"], strict=True)) == [
        (layer, alpha) for layer in (0, 2, 3) for alpha in (0.25, 1)
    ]
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]["prosody"]
    assert (ran["patch_alpha"], ran["swept"], ran["options"]) == ([0.25, 1.0], ["patch_alpha"], {"at": "span"})
    assert (out / "dose_response_prosody.png").exists() and (out / "report.html").exists()
    assert "done already" in call(*words, NO_FIGURES)


def test_heads_are_those_of_the_model_and_a_figure_shows_layer_by_head(tmp_path):
    out = tmp_path / "run"
    call("heads", "--out", out, *FEW, *LAYERS)
    metrics = pd.read_csv(out / "patching_metrics_heads-prosody.csv")
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]["heads-prosody"]
    assert ran["options"]["head"] == sorted(set(metrics["head"])) == list(range(len(ran["options"]["head"])))
    assert len(metrics) == 3 * len(ran["options"]["head"])
    assert {record["site"] for record in rows(out / "patching_records_heads-prosody.jsonl")} == {
        "self_attn.o_proj.input"
    }
    assert "--head 99: the model has 0-" in fails("heads", "--head", "99", "--out", tmp_path / "no", *FEW, status=2)
    assert not (tmp_path / "no").exists()


def test_what_can_be_refused_before_the_model_is_loaded_is(run, monkeypatch):
    monkeypatch.setattr("voicepatch.commandline.loading.load_model", lambda options: 1 / 0)
    words = ("patch", "--no-need", "--kind", "prosody", "--out", run, *FEW)
    assert "alpha was 1.0, is 0.5" in fails(*words, "--alpha", "0.5", status=2)
    assert "engine was tail, is stepwise" in fails(*words, "--engine", "stepwise", status=2)
    assert "layers_to_patch was" in fails(*words, *LAYERS, status=2)
    assert "align was truncate_to_min, is resample_linear" in fails(*words, "--align", "resample_linear", status=2)


def test_check_runs_the_checks_alone(tmp_path):
    assert "all checks passed" in call("check", "--out", tmp_path / "run", *MODEL)
    assert not list((tmp_path / "run").glob("patching_records*"))


def test_an_engine_that_differs_from_stepwise_stops_before_anything_is_measured(tmp_path, monkeypatch):
    of_engine = Engine.readouts

    def off(engine, experiment, *arguments):
        found = of_engine(engine, experiment, *arguments)
        return replace(found, logits=found.logits + 0.01 * (experiment.name == "mlp"))

    monkeypatch.setattr(Engine, "readouts", off)
    line = fails("mlp", "--kind", "prosody", "--out", tmp_path / "run", *FEW, status=3)
    assert "check failed: The engine computes what stepwise does: " in line
    found = json.loads((tmp_path / "run" / "sanity_check_engine.json").read_text(encoding="utf-8"))["mlp-prosody"]
    assert not found["passed"] and found["max_abs_logit_difference"] == pytest.approx(0.01, rel=0.01)
    assert not list((tmp_path / "run").glob("patching_records*"))


# A module that is None would look like torch to libraries that ask whether it is loaded.
NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ImportError("torch is not there")
sys.meta_path.insert(0, NoTorch())
"""


@pytest.mark.parametrize(
    "command", ["--help", "patch --help", "list", "models", "pairs --kind prosody --out {new}", "report {run}"]
)
def test_what_needs_no_model_does_not_wait_for_torch(run, tmp_path, command):
    without = NO_TORCH + "from cli import cli; cli()"
    words = command.format(new=tmp_path / "new", run=run).split()
    result = subprocess.run([sys.executable, "-c", without, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_failed_check_stops_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.models.opens2s_io.audio_length", lambda *args: 1)
    line = fails("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", *FEW, status=3)
    assert line.startswith("error: check failed") and "n_audio gives the number of audio frames" in line
    assert "sanity_check_model.json" in line
    assert not list((tmp_path / "run").glob("patching_records*"))


def test_pairs_needs_no_model(tmp_path):
    output = call("pairs", "--kind", "semantic", "--model", "no-such-model", "--out", tmp_path / "run")
    assert re.search(r"\d+ semantic pairs possible, 100 drawn", output)
    report = json.loads((tmp_path / "run" / "pair_construction_report.json").read_text())
    assert report["semantic"]["pairs_sampled"] == 100


def test_report_makes_tables_and_figures_again(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    for name in ("patching_metrics_prosody.csv", "flip_rate_curve_prosody.png"):
        (out / name).unlink()
    call("report", out)
    for name in ("patching_metrics_prosody.csv", "flip_rate_curve_prosody.png"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


def test_a_run_of_another_data_set_is_refused(run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(DEMO_DATA, data)
    shutil.rmtree(data / "sad")
    line = fails("patch", "--no-need", "--kind", "prosody", "--data", data, "--out", run, *FEW, status=1)
    assert "another data" in line


def test_the_options_offer_what_the_program_knows():
    # Written out twice, since help must not wait for torch.
    assert DECLARED["dtype"].type.metavar == f"[{'|'.join(DTYPES)}]"


def test_help_is_there_for_the_program_and_every_command():
    assert call(status=2) == call("--help")
    for command in cli.commands:
        assert "Usage:" in call(command, "--help")
    assert DEMO_MODEL.name not in call("patch", "--help")  # no path of this machine in the help


def test_without_figures_a_run_has_its_records_and_report_makes_the_rest(run, tmp_path):
    out = tmp_path / "run"
    output = call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW, NO_FIGURES)
    assert {path.suffix for path in out.iterdir()} == {".json", ".jsonl"}
    command = output.partition("report: python cli.py ")[2].splitlines()[0]
    call(*shlex.split(command))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in run.iterdir()
    }
