"""What data and directories say stays text and stays inside: in names of files, in pages, and behind links."""

import ast
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from cli import cli
from pairs import load_dataset
from tests.analysis.made_run import Page, make_run, write_report
from tests.commands import MODEL
from tests.store.made import IDENTITY, PAIRS, SETTINGS, records
from voicepatch import files
from voicepatch.commandline.running import run_path
from voicepatch.errors import UserError
from voicepatch.files import append, write_whole
from voicepatch.paths import DEMO_DATA, RESULTS
from voicepatch.store.directory import RunDir
from voicepatch.store.lock import LOCK, NOTE, only_user
from voicepatch.types.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
NO_PROCESS = 2**22 + 1  # Linux gives no higher number than 2**22
HOSTILE = {
    "path": "../../evil",
    "script": "</script><script>hacked()</script>",
    "lines": "two\nlines\r\n\u2028and a bell\a\x1b[31m",
    "long": "x" * 300,
    "markup": "<img src=x onerror=hacked()> & \"'{{ 7 * 7 }}",
}


def everything(folder):
    """Every file and link below, with its content."""
    return {p.relative_to(folder): p.is_symlink() or p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def fails(*words):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    return result.output.splitlines()[-1]


def test_hostile_ids_texts_and_speakers_stay_text(tmp_path):
    """A run of a pair for each of the words, which are its ids, text, speaker and all else that a manifest says."""
    data = tmp_path / "data"
    data.mkdir()
    lines = []
    for name, words in HOSTILE.items():
        about = {"text_id": words, "text": words, "semantic_label": "sad", "speaker": words, "text_type": words}
        for label in ("happy", "sad"):
            file = f"{name}_{label}.flac"
            shutil.copy(DEMO_DATA / label / "sad_implicit_1.flac", data / file)
            row = {"clip_id": f"{words}{label}", "path": file, "prosody_label": label, "language": words}
            lines.append(json.dumps(row | about) + "\n")
    (data / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    out = tmp_path / "run"
    command = ["patch", "--no-need", "--kind", "prosody", "--data", data, "--layers", "0", *MODEL, "--out", out]
    result = CliRunner().invoke(cli, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "\a" not in result.output
    pairs = (out / "pair_list_prosody.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert {json.loads(line)["speaker_a"] for line in pairs} == set(HOSTILE.values())
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}
    assert all(path.parent == out and path.name.isprintable() and len(path.name) < 60 for path in out.iterdir())
    page, plain = Page(out / "report.html"), Page(make_report(tmp_path))
    assert len(page.scripts) == len(plain.scripts) and set(page.tags) <= set(plain.tags)
    for figure in out.glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(figure.read_bytes()).iter()}
        assert not tags & {"script", "img", "foreignObject", "image"}


def make_report(tmp_path):
    return write_report(make_run(tmp_path / "plain"))


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_the_names_of_model_and_data_give_one_plain_folder_of_results(tmp_path, words):
    folder = tmp_path / words.replace("/", "_")[:200]
    shutil.copytree(DEMO_DATA, folder)
    for model in (words, f"owner/{words}", str(folder)):
        path = run_path(Settings(model=model), load_dataset(folder))
        assert path.parent == RESULTS and path.resolve().parent == RESULTS.resolve()
        assert path.name.isprintable() and len(path.name.encode()) < 256 and not set(path.name) & set('<>:"/\\|?*')


@pytest.mark.parametrize("words", [*HOSTILE.values(), "", ".", "a/b", "a\\b", "C:", "a\0b"])
def test_an_experiment_of_such_a_name_is_refused(tmp_path, words):
    run = RunDir(tmp_path / "run")
    run.claim(IDENTITY)
    with pytest.raises(UserError, match="cannot be part of a file's name"):
        run.begin(words, {}, [])
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("place", ["name", "kind"])
def test_a_run_that_was_handed_on_cannot_write_elsewhere(tmp_path, place):
    run = make_run(tmp_path / "inner" / "run") if (tmp_path / "inner").mkdir() is None else None
    config = json.loads((run / "patching_config.json").read_text(encoding="utf-8"))
    experiment = config["experiments"]["prosody"]
    evil = "/../../../evil"
    config["experiments"] = {evil: experiment} if place == "name" else {"prosody": experiment | {"kind": evil}}
    (run / "patching_config.json").write_text(json.dumps(config), encoding="utf-8")
    before = everything(tmp_path)
    for words in (["report", run], ["compare", run, "--out", tmp_path / "compared"]):
        expected = "cannot be part of a file's name" if place == "name" else "is damaged (Invalid enum value"
        assert expected in fails(*words)
    assert everything(tmp_path) == before


@pytest.fixture
def outside(tmp_path):
    """A file and a folder elsewhere, which nobody may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious", encoding="utf-8")
    return folder


def link(path, target):
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this user may not make symbolic links")


def test_a_link_is_replaced_by_a_file_that_is_written_whole(tmp_path, outside):
    link(tmp_path / "report.html", outside / "precious")
    write_whole(tmp_path / "report.html", "new")
    assert (outside / "precious").read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "report.html").is_symlink()


@pytest.mark.parametrize("target", ["precious", "not there yet"])
def test_nothing_is_appended_through_a_link(tmp_path, outside, monkeypatch, target):
    link(tmp_path / "records", outside / target)
    before = everything(outside)
    with pytest.raises(UserError, match="records: cannot be written"):
        append(tmp_path / "records", "new\n")
    monkeypatch.delattr(files.os, "O_NOFOLLOW", raising=False)  # as on Windows
    with pytest.raises(UserError, match="symbolic link"):
        append(tmp_path / "records", "new\n")
    assert everything(outside) == before


def test_a_report_follows_no_link_out_of_the_run(tmp_path, outside):
    run = make_run(tmp_path / "run")
    assert CliRunner().invoke(cli, ["report", str(run)]).exit_code == 0
    made = [path for path in run.iterdir() if path.suffix in (".csv", ".png", ".svg", ".html")]
    assert len(made) > 10
    for path in [*made, run / "statistics_prosody.json"]:
        link(path, outside / "precious")
    before = everything(outside)
    assert CliRunner().invoke(cli, ["report", str(run)]).exit_code == 0
    assert everything(outside) == before
    assert not any(path.is_symlink() for path in run.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "patching_config.json",
        "pair_list_prosody.jsonl",
        "patching_records_prosody.jsonl",
        "replaced-1",
        NOTE,
        LOCK,
    ],
)
def test_a_run_follows_no_link_out_of_its_directory(tmp_path, outside, name):
    run = RunDir(tmp_path / "run")
    run.claim(IDENTITY)
    run.begin("prosody", SETTINGS, PAIRS[:1])
    run.append("prosody", records(0))
    run.finish("prosody", {})
    content = (run.path / name).read_bytes() if (run.path / name).is_file() else b""
    target = outside / "folder" if name.startswith("repl") else outside / "file"
    target.mkdir() if name.startswith("repl") else target.write_bytes(content)
    link(run.path / name, target)
    before = everything(outside)
    try:
        with run.in_use():
            run.begin("prosody", SETTINGS | {"patch_alpha": 0.5}, PAIRS, overwrite=True)
            run.append("prosody", records(0))
    except UserError as error:
        assert name == LOCK and "cannot be written" in str(error)
    assert everything(outside) == before and not list(outside.glob("folder/*"))


def test_half_written_files_are_removed_and_not_what_they_link_to(tmp_path, outside):
    (tmp_path / "run").mkdir()
    link(tmp_path / "run" / f"report.html.{NO_PROCESS}.partial", outside / "precious")
    with only_user(tmp_path / "run"):
        assert not list((tmp_path / "run").glob("*.partial"))
    assert (outside / "precious").exists()


@pytest.mark.parametrize(
    "name", ["film.mp4.partial", "a.partial", "report.html.partial", "patching_config.json.x.partial"]
)
def test_half_written_files_of_other_programs_stay(tmp_path, name):
    (tmp_path / name).write_text("theirs", encoding="utf-8")
    with only_user(tmp_path):
        assert (tmp_path / name).read_text(encoding="utf-8") == "theirs"


def test_a_report_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "report.html").write_text("theirs", encoding="utf-8")
    line = fails("pairs", "--kind", "prosody", "--out", tmp_path)
    assert line.startswith(f"error: {tmp_path / 'report.html'}: is there, and no run")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = fails("pairs", "--kind", "prosody", "--out", tmp_path / "file" / "run")
    assert line.startswith("error: ") and "cannot be written" in line


def test_a_read_only_directory_is_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    run.chmod(0o555)
    try:
        (run / "try").touch()
    except OSError:
        pass
    else:
        pytest.skip("this user may write everywhere")
    before = everything(run)
    for words in (["report", run], ["pairs", "--kind", "prosody", "--out", run]):
        line = fails(*words)
        assert line.startswith("error: ") and "cannot be written" in line
    assert everything(run) == before
    run.chmod(0o755)


PROGRAM = sorted(
    path
    for folder in (
        *("", "analysis", "commandline", "demo", "engine", "interventions", "models", "pairs", "registry", "runs"),
    )
    for path in (ROOT / folder).glob("**/*.py" if folder else "*.py")
)


def text_files(path):
    """Calls that open, read or write text, each with the names of its arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        constants = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        binary = any(isinstance(value, str) and "b" in value and len(value) <= 3 for value in constants)
        of_os = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("os", "webbrowser")
        if called in ("open", "read_text", "write_text", "to_csv") and not of_os and not (called == "open" and binary):
            writes = called in ("write_text", "to_csv") or {"w", "a", "x"} & {v for v in constants if v in set("wax")}
            yield node.lineno, called, writes, {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_utf_8_and_its_line_ends_are_the_same_on_every_system(path):
    for line, called, writes, named in text_files(path):
        assert called == "to_csv" or "encoding" in named, f"{path.name}:{line}: {called} without encoding="
        assert not writes or named & {"newline", "lineterminator"}, f"{path.name}:{line}: {called} without newline="
