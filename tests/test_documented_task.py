"""The task of docs/tasks.md that is said to run on the demo does."""

import json

from click.testing import CliRunner

from cli import cli
from voicepatch.paths import ROOT


def test_the_example_for_the_demo_runs(tmp_path):
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    example = text.partition("## An example that runs on the demo")[2]
    (tmp_path / "tone.yaml").write_text(example.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    command = example.partition("```\npython cli.py ")[2].partition("\n")[0]
    command = command.replace("tone.yaml", str(tmp_path / "tone.yaml"))
    out = tmp_path / "run"
    result = CliRunner().invoke(cli, [*command.split(), "--layers", "0", "--device", "cpu", "--out", str(out)])
    assert result.exit_code == 0, result.output
    task = json.loads((out / "patching_config.json").read_text(encoding="utf-8"))["task"]
    assert (task["name"], task["words"]) == ("tone", None)


def test_the_example_with_letters_runs(tmp_path):
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    example = text.partition("### An example with letters that runs on the demo")[2]
    (tmp_path / "letters.yaml").write_text(example.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    command = example.partition("```\npython cli.py ")[2].partition("\n")[0]
    command = command.replace("letters.yaml", str(tmp_path / "letters.yaml"))
    options = ["--layers", "0", "--no-need", "--no-figures", "--device", "cpu", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*command.split(), *options])
    assert result.exit_code == 0 and "× 5 orders of the options ×" in result.output, result.output
