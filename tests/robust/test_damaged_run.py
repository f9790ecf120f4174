"""Every file of a run, damaged in every way that its declaration forbids: one line, status 1, and no figure.

The harms come from the declarations in `types.record` and `store.documents`, so that a new key has its own.
"""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.json import schema

import cli
from tests.analysis.made_run import Page, change, engine_found, lose, make_run, sounds_found, write_json
from voicepatch.store.documents import DOCUMENTS
from voicepatch.types.record import FailedPair, pair_row_type, record_type
from voicepatch.types.task import default_task

LINE = 2  # of a file of rows, that is harmed
ROWS = {
    "pair_list_prosody.jsonl": pair_row_type(default_task().labels),
    "patching_records_prosody.jsonl": record_type(default_task().labels),
    "failed_pairs_prosody.jsonl": FailedPair,
}
NOT_READ = ("in_use.json", "confirm.json")  # not by the commands that are tried here
FILES = {**{name: declared for name, declared in DOCUMENTS.items() if name not in NOT_READ}, **ROWS}
MAY_BE_MISSING = [name for name in DOCUMENTS if name != "patching_config.json"]  # the page says that it is


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of five pairs at two layers, two of which have failed."""
    run = make_run(tmp_path_factory.mktemp("runs") / "run", n_pairs=5, n_layers=2)
    write_json(run / "sanity_check_engine.json", {"prosody": engine_found()})
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found([("bad", "é")], silent=["quiet"])})
    change(run, "sanity_check_engine.json", lambda found: found["prosody"].update(differing_predictions=[DIFFERING]))
    lose(run, pairs=(1, 3))
    change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(n_pairs=5, n_failed=2))
    change(run, "patching_config.json", lambda c: c["model"].update(name="modèle"))
    return run


DIFFERING = {"pair_id": "p", "row": 2, "stepwise_margin": 4e-4}


@pytest.fixture(scope="module")
def run(whole, tmp_path_factory):
    """The run to be harmed; whoever does restores it."""
    return shutil.copytree(whole, tmp_path_factory.mktemp("harmed") / "run")


@pytest.fixture
def drawn(monkeypatch):
    """Names of the experiments that were summarised, and "report"; nothing is drawn."""
    names = []
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda results, name: names.append(name))
    monkeypatch.setattr("voicepatch.commandline.showing.report", lambda *_: names.append("report"))
    return names


def report(run):
    result = CliRunner().invoke(cli.cli, ["report", str(run)])
    return result.exit_code, [line for line in result.output.splitlines() if line.startswith("error: ")], result.output


def is_refused(run, drawn, file, line=None):
    """Whether `report` ends in one line that names the file, and nothing is drawn; what it says."""
    status, errors, output = report(run)
    assert status == 1 and len(errors) == 1 and output.splitlines() == errors, output
    assert str(run / file) in errors[0] and "a bug in the program" not in errors[0], errors[0]
    assert line is None or f": line {line}: " in errors[0], errors[0]
    assert errors[0].partition("; ")[2], "no way out"
    assert drawn == []
    return errors[0]


def rewritten(run, whole, file, content):
    """The file with another content, or what the content does to it."""
    path = run / file
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def restored(run, whole):
    yield
    for file in FILES:
        rewritten(run, whole, file, (whole / file).read_bytes())


# --- the file as a whole

BYTES = {
    "empty": lambda text: b"",
    "binary": lambda text: bytes(range(256)),
    "zeros": lambda text: bytes(500),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without its mark": lambda text: text.encode("utf-16-le"),
    "a byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "half": lambda text: text.encode()[: len(text) // 2],
    "a list": lambda text: b"[" + text.splitlines()[0].encode() + b"]\n",
    "a text": lambda text: b'"text"\n',
    "null": lambda text: b"null\n",
    "deep": lambda text: b'{"a":' * 100_000 + b"\n",
    "twice": lambda text: text.encode() + text.encode(),
}


@pytest.mark.parametrize("harm", [*BYTES, "latin-1", "a directory", *(["a pipe"] if hasattr(os, "mkfifo") else [])])
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_none_of_ours_is_refused(run, whole, drawn, file, harm):
    text = (whole / file).read_text(encoding="utf-8")
    if file not in ROWS and "\n" not in text:
        text += "\n"
    if harm == "latin-1":
        key = text.index('"', text.index('"') + 1)
        content = text.encode()[:key] + b"\xe9" + text.encode()[key:]
    else:
        made = {"a directory": Path.mkdir, "a pipe": lambda path: os.mkfifo(path)}
        content = made.get(harm) or BYTES[harm](text)
    rewritten(run, whole, file, content)
    is_refused(run, drawn, file)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_missing_is_refused_or_reported_as_missing(run, whole, drawn, file):
    (run / file).unlink()
    if file in MAY_BE_MISSING:
        assert report(run)[0] == 0 and drawn == ["prosody", "report"]
    elif file == "patching_config.json":
        status, errors, _ = report(run)
        assert status == 1 and "holds no experiment" in errors[0] and drawn == []
    else:
        is_refused(run, drawn, file)


# --- one line of a file of rows

LINES = {
    "blank": lambda line: b"\n",
    "of blanks": lambda line: b"  \n",
    "torn": lambda line: line[: len(line) // 2] + b"\n",
    "joined with the next": lambda line: line[:-1],
    "a list": lambda line: b"[" + line[:-1] + b"]\n",
    "a number": lambda line: b"1\n",
    "latin-1": lambda line: line.replace(b"_", b"\xe9", 1),
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "twice": lambda line: line + line,
}


@pytest.mark.parametrize("harm", LINES)
@pytest.mark.parametrize("file", ROWS)
def test_a_line_that_is_none_of_ours_is_named(run, whole, drawn, file, harm):
    lines = (whole / file).read_bytes().splitlines(keepends=True)
    if harm == "joined with the next" and len(lines) == LINE:
        lines.append(lines[-1])
    lines[LINE - 1] = LINES[harm](lines[LINE - 1])
    rewritten(run, whole, file, b"".join(lines))
    is_refused(run, drawn, file, LINE + (harm == "twice"))


@pytest.mark.parametrize("file", ROWS)
def test_a_last_line_without_its_end_is_named(run, whole, drawn, file):
    content = (whole / file).read_bytes()
    rewritten(run, whole, file, content[:-1])
    assert "no line end" in is_refused(run, drawn, file, content.count(b"\n"))


# --- a key or a value

OTHERS = {
    "integer": ["1", 1.5, None, True, [1], float("nan"), float("inf"), "1e999"],
    "number": ["1", None, True, [1], float("nan"), float("-inf"), "1e999"],
    "boolean": ["true", 1, None],
    "string": [1, ["text"], {}],
    "null": [1],
    "enum": ["another", 1],
    "array": [{}, "text"],
    "object": [[], "text"],
}


def harms(declared):
    """(what is done, path of keys, value or DELETE), for each that the declaration forbids."""
    found = schema(declared)
    yield from _harms(found, found.get("$defs", {}), ())


def beyond(kind):
    """The numbers just outside the range of a declared number."""
    if "minimum" in kind:
        yield kind["minimum"] - max(1, abs(kind["minimum"]))
    if "exclusiveMinimum" in kind:
        yield kind["exclusiveMinimum"]
    if "maximum" in kind:
        yield kind["maximum"] * 2


DELETE = "(deleted)"
UNKNOWN = "an_unknown_key"


def _harms(kind, known, path):
    while "$ref" in kind:
        kind = known[kind["$ref"].rpartition("/")[2]]
    name = ".".join(map(str, path))
    if "anyOf" in kind:
        kinds = {one.get("type") for one in kind["anyOf"]}
        if "null" in kinds:
            yield f"{name} is {{}}", path, {}
        for harm in _harms(kind["anyOf"][0], known, path):
            if not ("array" in kinds and isinstance(harm[2], list)) and not ("null" in kinds and harm[2] is None):
                yield harm
        return
    if not kind.keys() & {"type", "enum"}:
        return  # whatever an option takes
    for value in OTHERS["enum" if "enum" in kind else kind["type"]] if path else ():
        yield f"{name} is {value!r}", path, value
    for value in beyond(kind) if path else ():
        yield f"{name} is {value}, out of its range", path, value
    for key, inner in kind.get("properties", {}).items():
        if key in kind["required"]:
            yield f"{name} lacks {key}", (*path, key), DELETE
        yield from _harms(inner, known, (*path, key))
    if "properties" in kind:
        yield f"{name} has an unknown key", (*path, UNKNOWN), 1
    elif kind.get("type") == "object":
        if kind.get("minProperties"):
            yield f"{name} has a label too few", (*path, 0), DELETE
        yield from _harms(kind.get("additionalProperties", {}), known, (*path, 0))
    if "items" in kind:
        yield from _harms(kind["items"], known, (*path, 0))


def harmed(content, path, value):
    """The content with the value at a path of keys, where 0 is the first; None where it has nothing there."""
    content = copy.deepcopy(content)
    at, steps = content, list(path)
    while True:
        key = steps.pop(0)
        if key == 0 and isinstance(at, dict):
            key = next(iter(at), None)
        if not (key in at or key == UNKNOWN if isinstance(at, dict) else isinstance(key, int) and len(at) > key):
            return None
        if steps:
            at = at[key]
        elif value == DELETE:
            del at[key]
            return content
        else:
            at[key] = value
            return content


CASES = [(file, *harm) for file, declared in FILES.items() for harm in harms(declared)]


def test_the_harms_are_many():
    assert len(CASES) > 600 and {file for file, *_ in CASES} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_what_the_declaration_forbids_is_refused(run, whole, drawn, file):
    """One test a file; the harms are tried one after the other, and the message of a failure names the one."""
    lines = (whole / file).read_text(encoding="utf-8").splitlines(keepends=True) if file in ROWS else []
    content = json.loads(lines[LINE - 1] if lines else (whole / file).read_text(encoding="utf-8"))
    tried = 0
    for _, what, path, value in (case for case in CASES if case[0] == file):
        changed = harmed(content, path, value)
        if changed is None or changed == content:
            continue
        text = json.dumps(changed, ensure_ascii=False).replace('"1e999"', "1e999")
        text = "".join([*lines[: LINE - 1], text + "\n", *lines[LINE:]]) if lines else text
        rewritten(run, whole, file, text.encode())
        try:
            is_refused(run, drawn, file, LINE if lines else None)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
        tried += 1
    assert tried > 5


ANY_NUMBER = {"ids_in_span"}  # a placeholder's id may be negative


def numbers(kind, name=""):
    """(name of the key, declaration) of every number that a declaration has."""
    if isinstance(kind, list):
        for inner in kind:
            yield from numbers(inner, name)
    elif isinstance(kind, dict):
        if kind.get("type") in ("integer", "number"):
            yield name, kind
        for key, inner in kind.items():
            yield from numbers(inner, name if key in ("items", "anyOf", "additionalProperties") else key)


@pytest.mark.parametrize("file", FILES)
def test_every_number_has_a_range(file):
    for name, kind in numbers(schema(FILES[file])):
        assert name in ANY_NUMBER or {"minimum", "exclusiveMinimum"} & kind.keys(), name
        # A seed may have as many bits as it likes.
        assert name in ANY_NUMBER or "maximum" in kind or name.endswith("seed"), name


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("patching_config.json", ("experiments", "prosody", "pair_sampling_seed"), -1),
        ("patching_records_prosody.jsonl", ("label_mass_patch",), -7),
        ("patching_records_prosody.jsonl", ("label_mass_base",), 1.5),
        ("patching_records_prosody.jsonl", ("stream_shift",), -1e-6),
        ("patching_records_prosody.jsonl", ("logits_patch", "happy"), 1e308),
        ("patching_records_prosody.jsonl", ("n_patched",), 10**30),
        ("sanity_check_engine.json", ("prosody", "tolerance"), -1.0),
    ],
)
def test_a_number_that_cannot_be_is_refused(run, whole, drawn, file, path, value):
    lines = (whole / file).read_text(encoding="utf-8").splitlines(keepends=True) if file in ROWS else []
    content = json.loads(lines[LINE - 1] if lines else (whole / file).read_text(encoding="utf-8"))
    text = json.dumps(harmed(content, path, value), ensure_ascii=False)
    rewritten(run, whole, file, "".join([*lines[: LINE - 1], text + "\n", *lines[LINE:]]).encode())
    is_refused(run, drawn, file, LINE if lines else None)


# --- files that are each as declared, but contradict each other


def rows_of(run, file="patching_records_prosody.jsonl"):
    return [json.loads(line) for line in (run / file).read_text(encoding="utf-8").splitlines()]


def with_row(number, **values):
    def edit(run):
        rows = rows_of(run)
        rows[number - 1] |= {
            key: value(rows[number - 1]) if callable(value) else value for key, value in values.items()
        }
        return "patching_records_prosody.jsonl", rows, number

    return edit


def with_rows(change_rows, line, file="patching_records_prosody.jsonl"):
    def edit(run):
        rows = rows_of(run, file)
        return file, change_rows(rows) or rows, line

    return edit


def raised(logits):
    label = min(logits, key=logits.get)
    return logits | {label: logits[label] + 1}


PAIRS_FILE, FAILED_FILE = "pair_list_prosody.jsonl", "failed_pairs_prosody.jsonl"
OTHER = {"happy": "sad", "sad": "angry", "angry": "neutral", "neutral": "surprised", "surprised": "happy"}
CONTRADICTIONS = {
    "a row lost in the midst": with_rows(lambda rows: rows.pop(2) and None, 3),
    "the last row lost": with_rows(lambda rows: rows.pop() and None, 6),
    "a pair lost": with_rows(lambda rows: rows[:4], 5),
    "a row of a foreign pair": with_row(2, pair_id="of another run"),
    "a pair at two places": with_rows(lambda rows: [*rows[:2], *rows[2:4], *rows[:2], *rows[4:]], 5),
    "a layer that was not patched": with_row(2, layer=7),
    "a dose that was not given": with_row(2, patch_alpha=0.5),
    "pred_patch against the logits": with_row(3, pred_patch=lambda row: OTHER[row["pred_patch"]]),
    "pred_base against the logits": with_row(3, pred_base=lambda row: OTHER[row["pred_base"]]),
    "eligible": with_row(3, eligible=lambda row: not row["eligible"]),
    "flip_to_target": with_row(3, flip_to_target=lambda row: not row["flip_to_target"]),
    "flip_from_base": with_row(3, flip_from_base=lambda row: not row["flip_from_base"]),
    "delta_logit_target": with_row(3, delta_logit_target=lambda row: row["delta_logit_target"] + 1e-5),
    "the patched logits of another model": with_row(
        3, logits_patch=lambda row: {k: -v for k, v in row["logits_patch"].items()}
    ),
    "A's logits": with_row(4, logits_base=lambda row: raised(row["logits_base"])),
    "B's logits": with_row(4, logits_donor=lambda row: raised(row["logits_donor"])),
    "A's length": with_row(4, len_a=99),
    "B's length": with_row(4, len_b=99),
    "another clip A": with_row(2, clip_a="another"),
    "another clip B": with_row(2, clip_b="another"),
    "another target": with_row(2, target=lambda row: OTHER[row["target"]]),
    "another label of B": with_row(2, prosody_label_b=lambda row: OTHER[row["prosody_label_b"]]),
    "a pair list cut": with_rows(lambda rows: rows[:3], 3, PAIRS_FILE),
    "a pair twice": with_rows(lambda rows: [*rows[:4], rows[0]], 5, PAIRS_FILE),
    "a pair of another kind": with_rows(lambda rows: rows[1].update(kind="semantic"), 2, PAIRS_FILE),
    "a target that is not B's label": with_rows(
        lambda rows: rows[1].update(target=OTHER[rows[1]["target"]]), 2, PAIRS_FILE
    ),
    "a failed pair that is not in the list": with_rows(lambda rows: rows[1].update(pair_id="x"), 2, FAILED_FILE),
    "a failed pair twice": with_rows(lambda rows: [rows[0], rows[0]], 2, FAILED_FILE),
    "a failed pair less": with_rows(lambda rows: rows[:1], None, FAILED_FILE),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_files_that_contradict_each_other_are_refused(run, whole, drawn, what):
    file, rows, line = CONTRADICTIONS[what](whole)
    rewritten(run, whole, file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    is_refused(run, drawn, file, line)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"layers_to_patch": [0, 1, 2]}, "not among the model's 0-1"),
        ({"layers_to_patch": [1, 0]}, "each once and in order"),
        ({"main": False}, "which has another name"),
        ({"kind": "semantic"}, "lacks max_pairs_semantic"),
        ({"swept": ["logits_base"]}, "swept has a name that is none of its options"),
        ({"swept": ["k"]}, "swept has a name that is none of its options"),
        ({"options": {"a b": [1]}, "swept": ["a b"]}, "swept has a name that is none of its options"),
    ],
)
def test_settings_that_contradict_the_configuration_are_refused(run, whole, drawn, settings, why):
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(settings))
    assert why in is_refused(run, drawn, "patching_config.json")


def test_two_pairs_of_one_clip_have_its_own_logits(tmp_path, drawn):
    """A's and B's unpatched logits are the same in all records of a clip, but for the arithmetic's noise."""
    run = make_run(tmp_path / "run", n_pairs=40, n_layers=1)
    rows = rows_of(run)
    clip, numbers = next((c, n) for c, n in _places(rows).items() if len(n) > 1)
    for by, refused in ((1e-4, False), (0.1, True)):
        changed = copy.deepcopy(rows)
        for side, logits in (("a", "logits_base"), ("b", "logits_donor")):
            row = changed[numbers[-1]]
            if row[f"clip_{side}"] == clip:
                label = next(label for label in row[logits] if row[logits][label] == 0 and label != row["target"])
                row[logits][label] += by
        text = "".join(json.dumps(row) + "\n" for row in changed)
        (run / "patching_records_prosody.jsonl").write_text(text, encoding="utf-8")
        change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(engine_tolerance=1e-3))
        if refused:
            said = is_refused(run, [], "patching_records_prosody.jsonl", numbers[-1] + 1)
            assert "other unpatched logits than a line before" in said
        else:
            assert report(run)[0] == 0


def _places(rows):
    places = {}
    for number, row in enumerate(rows):
        for clip in {row["clip_a"], row["clip_b"]}:
            places.setdefault(clip, []).append(number)
    return places


# --- beside other experiments, and other commands


@pytest.fixture
def two(tmp_path):
    run = make_run(tmp_path / "two", ("prosody", "semantic", "random-prosody"), n_pairs=4, n_layers=2)
    records = run / "patching_records_prosody.jsonl"
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_text("".join(lines[:3] + lines[2:]), encoding="utf-8", newline="\n")  # a line twice
    return run


def test_the_other_experiments_are_reported_and_the_status_is_1(two, monkeypatch):
    """It was once otherwise: a sweep with duplicates blocked the report of the whole run from then on."""
    names = []
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda results, name: names.append(name))
    status, errors, _ = report(two)
    assert status == 1 and names == ["semantic", "random-prosody"]
    assert len(errors) == 1 and "line 4: is of pair" in errors[0]
    page = Page(two / "report.html")
    assert "prosody cannot be shown" in page.text and "is expected" in page.text
    assert not any("_prosody" in stem and "random" not in stem for stem in page.data["figures-data"]["specs"])


def test_a_comparison_of_a_run_that_does_not_hold_together_is_refused(two, tmp_path):
    result = CliRunner().invoke(cli.cli, ["compare", str(two), "--out", str(tmp_path / "compared")])
    assert result.exit_code == 1 and "line 4" in result.output.splitlines()[-1]
    assert not (tmp_path / "compared").exists()


def test_a_pair_list_in_another_order_than_the_records_is_refused(two, drawn):
    file = "pair_list_random-prosody.jsonl"
    rows = rows_of(two, file)
    rows[0], rows[1] = rows[1], rows[0]
    (two / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, errors, _ = report(two)
    assert len(errors) == 2 and "patching_records_random-prosody.jsonl: line 1: is of pair" in errors[1]


def test_tables_that_were_written_before_are_made_again_whatever_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=4, n_layers=2)
    assert report(run)[0] == 0
    written = [path for path in run.iterdir() if path.suffix == ".csv" or path.name.startswith("statistics")]
    before = {path: path.read_bytes() for path in written}
    assert len(before) == 4
    for path in written:
        path.write_bytes(b"\0\xff, no table\r\n")
    assert report(run)[0] == 0
    assert {path: path.read_bytes() for path in written} == before


def test_an_unfinished_experiment_is_told_with_the_number_of_its_pairs(run, whole, drawn):
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(finished=False))
    lines = (whole / "patching_records_prosody.jsonl").read_bytes().splitlines(keepends=True)
    rewritten(run, whole, "patching_records_prosody.jsonl", b"".join(lines[:3]) + lines[3][:40])
    status, errors, output = report(run)
    assert status == 0 and not errors and "prosody is not finished: 1 of 5 pairs are in" in output
