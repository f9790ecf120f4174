"""What was written is read back, and whatever else a file holds is refused in one line."""

import ast
import json
import shutil
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.store.described import TABLES, described
from tests.store.made import IDENTITY, LABELS, PAIRS, SETTINGS, failed, pair, records
from voicepatch.errors import UserError
from voicepatch.store.directory import RunDir
from voicepatch.store.documents import DOCUMENTS
from voicepatch.store.experiment import read_experiment
from voicepatch.store.reading import read_config, read_document, read_rows
from voicepatch.types.record import LOGITS, FailedPair, PairRow, Record, record_type

ROOT = Path(__file__).resolve().parents[2]


def make(folder, rows=None, finished=True, **settings):
    """A run of the three pairs with these records; gives its directory."""
    run = RunDir(folder)
    run.claim(IDENTITY)
    run.begin("prosody", SETTINGS | settings, PAIRS)
    run.append("prosody", [row for i in range(3) for row in records(i)] if rows is None else rows)
    if finished:
        run.finish("prosody", {"n_pairs": 3, "n_failed": 0})
    return folder


def rows_of(stored):
    """The records as the rows that were written."""
    names = list(stored.columns)
    values = zip(*(column.tolist() for column in stored.columns.values()), strict=True)
    rows = [dict(zip(names, row, strict=True)) for row in values]
    return [row | {name: dict(zip(LABELS, row[name], strict=True)) for name in LOGITS} for row in rows]


def read(run):
    return read_experiment(run, read_config(run), "prosody")


def test_what_was_written_is_read_back(tmp_path):
    stored = read(make(tmp_path))
    rows = [row for i in range(3) for row in records(i)]
    assert rows_of(stored) == rows
    assert (
        stored.n_measured == 3 and stored.failed == {} and [pair.pair_id for pair in stored.pairs] == ["p0", "p1", "p2"]
    )


def test_a_swept_option_is_a_column_of_its_own(tmp_path):
    rows = [row | {"head": head} for i in range(3) for head in (3, 0) for row in records(i)]
    stored = read(make(tmp_path, rows, swept=["head"], options={"head": [3, 0]}))
    assert stored.columns["head"].tolist() == [3, 3, 0, 0] * 3
    path = tmp_path / "patching_records_prosody.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"head": 0', '"head": "0"', 1), encoding="utf-8")
    with pytest.raises(
        UserError,
        match="line 3: is of pair p0, layer 0, head '0', alpha 1, where pair p0, layer 0, head 0, alpha 1 is expected",
    ):
        read(tmp_path)


def test_estimates_are_marked_in_each_record_and_read_back_as_such(tmp_path):
    rows = [row | {"approximate": True} for i in range(3) for row in records(i)]
    stored = read(make(tmp_path, rows, approximate=True))
    assert stored.columns["approximate"].all() and len(stored.columns["approximate"]) == 6


@pytest.mark.parametrize(
    ("is_estimate", "mark", "wrong"),
    [
        (True, '"approximate": false', "approximate is false, where the experiment's logits are estimates"),
        (True, "", "approximate"),
        (False, '"approximate": true', "approximate"),
    ],
)
def test_a_record_that_is_marked_otherwise_than_its_experiment_is_an_error(tmp_path, is_estimate, mark, wrong):
    rows = [row | ({"approximate": True} if is_estimate else {}) for i in range(3) for row in records(i)]
    path = make(tmp_path, rows, approximate=is_estimate) / "patching_records_prosody.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[3] = lines[3].replace(', "approximate": true', "").replace("}\n", f", {mark}}}\n" if mark else "}\n")
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=f"line 4: .*{wrong}"):
        read(tmp_path)


def test_doses_that_are_swept_are_read_back(tmp_path):
    doses = [0.5, 1.0]
    rows = [row | {"patch_alpha": dose} for i in range(3) for dose in doses for row in records(i)]
    stored = read(make(tmp_path, rows, swept=["patch_alpha"], patch_alpha=doses))
    assert stored.columns["patch_alpha"].tolist() == [0.5, 0.5, 1, 1] * 3 and stored.n_measured == 3


def test_further_columns_of_the_data_are_keys_of_the_pair_list(tmp_path):
    identity = IDENTITY | {"data": IDENTITY["data"] | {"columns": ["Age", "prosody_label"]}}
    of_clips = {"Age_a": "41", "Age_b": None, "data_prosody_label_a": "joy", "data_prosody_label_b": "joy"}
    run = RunDir(tmp_path)
    run.claim(identity)
    with pytest.raises(ValueError, match="Age_a"):
        run.begin("prosody", SETTINGS, PAIRS)
    run.begin("prosody", SETTINGS, [pair | of_clips for pair in PAIRS])
    assert run.read_pairs("prosody") == [pair | of_clips for pair in PAIRS]
    file = tmp_path / "pair_list_prosody.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    other = first.replace('"41"', '"42"').replace('"p0"', '"p9"').replace('"b0"', '"b9"')
    file.write_text("".join([first, other, *rest]))
    with pytest.raises(UserError, match="line 2: gives clip a0 Age '42', where line 1 gives '41'"):
        run.read_pairs("prosody")


def test_failed_pairs_have_a_reason_and_no_records(tmp_path):
    run = RunDir(tmp_path)
    run.claim(IDENTITY)
    run.begin("prosody", SETTINGS, PAIRS)
    run.append("prosody", records(0) + records(2))
    run.append_failure("prosody", failed(1))
    run.finish("prosody", {"n_pairs": 3, "n_failed": 1})
    assert read(tmp_path).failed == {"p1": "a logit is not finite"} and read(tmp_path).n_measured == 2


@pytest.mark.parametrize(
    ("rows", "torn", "n_measured"),
    [
        (0, "", 0),
        (1, "", 0),
        (2, '{"pair_id": "p1', 1),
        (3, "", 1),
        (4, "\xc3", 2),
        (5, '{"pair_id": "p2"}', 2),
        (6, "", 3),
    ],
)
def test_of_an_unfinished_experiment_the_whole_pairs_are_read(tmp_path, rows, torn, n_measured):
    some = [row for i in range(3) for row in records(i)][:rows]
    make(tmp_path, some, finished=False)
    with (tmp_path / "patching_records_prosody.jsonl").open("ab") as file:
        file.write(torn.encode("latin-1"))
    stored = read(tmp_path)
    assert stored.n_measured == n_measured and all(len(column) == 2 * n_measured for column in stored.columns.values())


def test_a_value_that_was_swept_twice_is_refused(tmp_path):
    rows = [row for i in range(3) for row in records(i) * 2]
    make(tmp_path, rows, finished=False, swept=["patch_alpha"], patch_alpha=[1.0, 1.0])
    with pytest.raises(UserError, match="patch_alpha is swept, and is no list of different values; run that"):
        read(tmp_path)


def test_memory_is_that_of_the_columns_and_a_block(tmp_path, monkeypatch):
    """A run is read, checked and resumed with less memory than its file has bytes."""
    monkeypatch.setattr("voicepatch.store.table.BLOCK", 100)
    pairs, layers = [pair(i) for i in range(100)], list(range(150))
    identity = IDENTITY | {"model": IDENTITY["model"] | {"n_layers": 150}}
    settings = SETTINGS | {"layers_to_patch": layers}
    run = RunDir(tmp_path)
    run.claim(identity)
    run.begin("prosody", settings, pairs)
    for i in range(100):
        run.append("prosody", [records(i)[0] | {"layer": layer} for layer in layers])
    whole = run.records_file("prosody").read_bytes()
    size = len(whole)
    assert size > 10 << 20
    config = run.config()

    def peak(read):
        tracemalloc.start()
        found = read()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, most

    stored, reading = peak(lambda: read_experiment(tmp_path, config, "prosody"))
    assert len(stored.columns["layer"]) == 15_000 and reading < 0.7 * size + (1 << 20)
    run.records_file("prosody").write_bytes(whole[:-20])
    done, resuming = peak(lambda: run.begin("prosody", settings, pairs))
    assert done == 99 and resuming < 0.7 * size + (1 << 20)
    assert whole.startswith(run.records_file("prosody").read_bytes())


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("harm", [None, "torn", "a row lost", "a row changed", "a pair twice", "not JSON"])
def test_where_a_block_ends_changes_nothing(tmp_path, monkeypatch, size, harm):
    """The same rows, or the same first wrong line, however many rows are read at a time."""
    path = tmp_path / "patching_records_prosody.jsonl"
    make(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if harm == "torn":
        lines[-1] = lines[-1][:-1]
    elif harm == "a row lost":
        del lines[1]
    elif harm == "a row changed":
        lines[3] = lines[3].replace('"len_b": 12', '"len_b": 13')
    elif harm == "a pair twice":
        lines += lines[:2]
    elif harm == "not JSON":
        lines[4] = lines[4].replace("{", "[", 1)
    path.write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr("voicepatch.store.table.BLOCK", size)
    wrong = {
        "torn": "line 6: has no line end",
        "a row lost": "line 2: is of pair p1, layer 0, alpha 1, where pair p0, layer 1, alpha 1 is expected",
        "a row changed": "line 4: len_b differs from that of the pair's first row",
        "a pair twice": "line 7: comes after the last record that the pair list has",
        "not JSON": "line 5: ",
    }
    if harm is None:
        assert rows_of(read(tmp_path)) == [row for i in range(3) for row in records(i)]
    else:
        with pytest.raises(UserError, match=wrong[harm]):
            read(tmp_path)


@pytest.mark.parametrize("joined", ["two in one line", "one over two lines", "both, so that the lines are as many"])
def test_a_line_is_one_record(tmp_path, joined):
    path = tmp_path / "patching_records_prosody.jsonl"
    make(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if joined != "one over two lines":
        lines[1] = lines[1][:-1]
    if joined != "two in one line":
        lines[4] = lines[4].replace(", ", ",\n", 1)
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=f"line {5 if joined == 'one over two lines' else 2}: "):
        read(tmp_path)


@pytest.mark.parametrize(
    ("rows", "change", "why"),
    [
        ((1,), {"pred_patch": "happy", "flip_from_base": True}, "line 2: pred_patch contradicts the logits"),
        ((0, 1), {"pred_base": "happy", "flip_from_base": True}, "line 1: pred_base contradicts the logits"),
    ],
)
def test_an_answer_that_agrees_with_its_flips_and_not_with_its_logits_is_refused(tmp_path, rows, change, why):
    """Another label that is neither the target nor A's own answer: only the logits say that it is wrong."""
    some = [row for i in range(3) for row in records(i)]
    for number in rows:
        some[number] |= change
    make(tmp_path, some, finished=False)
    with pytest.raises(UserError, match=why):
        read(tmp_path)


def test_of_two_wrong_lines_the_first_is_named(tmp_path):
    """Whether it is JSON is seen before what it says, but of a later line."""
    path = tmp_path / "patching_records_prosody.jsonl"
    make(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[3] = lines[3].replace('"eligible": true', '"eligible": false')
    lines[5] = "no record\n"
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match="line 4: eligible differs from that of the pair's first row"):
        read(tmp_path)


# --- whatever a file holds

BYTES = st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "run")


def is_one_line(error, path):
    assert str(error).startswith(f"{path}: ") and str(error).isprintable() and "; " in str(error)


@given(content=BYTES | VALUES.map(json.dumps).map(str.encode), name=st.sampled_from(sorted(DOCUMENTS)))
@settings(max_examples=300, deadline=None)
def test_any_document_is_as_declared_or_refused_in_one_line(content, name):
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            assert isinstance(read_document(path), dict)
        except UserError as error:
            is_one_line(error, path)


@given(
    content=BYTES,
    declared=st.sampled_from([PairRow, FailedPair, record_type(LABELS, ("head",))]),
    complete=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_rows_are_as_declared_or_refused_in_one_line(content, declared, complete):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(content)
        try:
            assert all(isinstance(row, declared) for _, row in read_rows(path, declared, "run it again", complete))
        except UserError as error:
            is_one_line(error, path)


KEYS = list(Record.__struct_fields__)


@given(number=st.integers(0, 5), key=st.sampled_from(KEYS), value=VALUES | st.sampled_from(LABELS))
@example(number=1, key="delta_logit_target", value=1e-300)
@example(number=1, key="delta_logit_target", value=1e-5)
@settings(max_examples=400, deadline=None)
def test_a_record_with_any_other_value_is_refused_or_says_the_same(made, number, key, value):
    """But for what nothing else of a run says: the mass, the shift, the place and number of the positions."""
    rows = [row for i in range(3) for row in records(i)]
    same = json.dumps(rows[number][key]) == json.dumps(value)
    rows[number][key] = value
    free = key in ("n_patched", "label_mass_base", "label_mass_patch", "stream_shift", "patched_from", "site")
    with TemporaryDirectory() as folder:
        run, path = shutil.copytree(made, folder, dirs_exist_ok=True), Path(folder) / "patching_records_prosody.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        try:
            read(Path(run))
            true = records(number // 2)[number % 2][key]
            # A difference may be off by less than it is written with, which no other number may, and 1 is 1.0 in JSON.
            near = key == "delta_logit_target" and abs(value - true) < 4e-6
            assert same or free or near or value == true, (key, value)
        except UserError as error:
            is_one_line(error, path)
            assert not same


@given(order=st.lists(st.integers(0, 5), max_size=8) | st.permutations(range(6)) | st.just([0, 1, 2, 3, 4, 5]))
@settings(max_examples=200, deadline=None)
def test_every_row_stands_once_in_the_order_of_the_pair_list(made, order):
    rows = [row for i in range(3) for row in records(i)]
    with TemporaryDirectory() as folder:
        run, path = shutil.copytree(made, folder, dirs_exist_ok=True), Path(folder) / "patching_records_prosody.jsonl"
        path.write_text("".join(json.dumps(rows[i]) + "\n" for i in order), encoding="utf-8")
        try:
            read(Path(run))
            assert list(order) == [0, 1, 2, 3, 4, 5]
        except UserError as error:
            is_one_line(error, path)
            assert list(order) != [0, 1, 2, 3, 4, 5]


# --- one reader

ROOMS = ("analysis", "figures", "report", "runs", "store")
OTHERS = sorted({*ROOT.glob("*.py"), *(path for room in ROOMS for path in ROOT.glob(f"voicepatch/{room}/*.py"))})
MAY_OPEN = {"voicepatch/store/reading.py"}
OWN = {"voicepatch/report/__init__.py", "voicepatch/runs/interrupt.py"}  # the page's template; the null device


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_else_opens_a_file(path):
    if str(path.relative_to(ROOT)) in MAY_OPEN or str(path.relative_to(ROOT)) in OWN:
        return
    called = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {getattr(function, "attr", getattr(function, "id", "")) for function in called}
    assert not names & {"open", "read_text", "read_bytes", "read_csv"}


# --- what the documentation says


@pytest.mark.parametrize("name", TABLES)
def test_the_documentation_has_the_declarations(name):
    """`python -m tests.store.described` prints them."""
    assert described(TABLES[name]) in (ROOT / "results" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_every_key_is_described(name):
    assert all(line.split("|")[3].strip() for line in described(TABLES[name]).splitlines()[2:])
