"""Whatever a manifest holds, it is read into valid clips or refused in one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pairs import KINDS, build_pairs, dataset_identity, load_dataset, pair_row
from voicepatch.errors import UserError
from voicepatch.types.task import default_task

LABELS = default_task().labels

COLUMNS = ("clip_id", "path", "text_id", "text", "semantic_label", "prosody_label", "speaker", "language", "text_type")
# Words that make a manifest, so that chance finds its way past the header, and letters that break things.
WORDS = ["a.wav", "b.wav", "../c.wav", "", " ", "neutral", "Happy", "sad", "ps", "t1", "t2", "a->b", "b", "->", "calm"]
LETTERS = st.characters(categories=None) | st.sampled_from('",;\n\r\t\0\ufeff\u2028\u202e\ud800\\{}[]')
texts = st.sampled_from(WORDS) | st.text(LETTERS, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
likely = st.fixed_dictionaries(
    {
        "clip_id": texts,
        "path": st.sampled_from(["a.wav", "b.wav", "../c.wav"]) | texts,
        "text_id": st.sampled_from(["t1", "t2", "t3"]) | texts,
        "text": st.just("x") | texts,
        "semantic_label": st.sampled_from(LABELS),
        "prosody_label": st.sampled_from(LABELS),
    },
    optional={"speaker": texts, "language": texts, "text_type": texts},
)
json_lines = st.lists(
    (likely | st.dictionaries(st.sampled_from(COLUMNS) | texts, values) | values).map(json.dumps)
    | st.text(max_size=20),
    max_size=6,
).map("\n".join)


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


cells = texts | texts.map(quoted)
csv_lines = st.tuples(
    st.just(",".join(COLUMNS[:6])) | st.just(",".join(COLUMNS)) | st.lists(cells, max_size=8).map(",".join),
    st.lists(
        likely.map(lambda row: ",".join(quoted(row[column]) for column in COLUMNS[:6]))
        | st.lists(cells, max_size=10).map(",".join),
        max_size=6,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
).map(lambda parts: parts[2].join([parts[0], *parts[1]]))
as_bytes = st.one_of(
    st.binary(max_size=60),
    st.tuples(csv_lines | json_lines, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])).map(
        lambda parts: parts[0].encode(parts[1], "replace")
    ),
)


@pytest.fixture(scope="module")
def folder():
    with TemporaryDirectory() as root:
        folder = Path(root) / "data"
        folder.mkdir()
        for name in ("a.wav", "b.wav", "../c.wav"):
            (folder / name).write_text(name)
        for label in LABELS:
            (folder / "corpus" / label).mkdir(parents=True)
            for name in ("t1", "t2", "t3"):
                (folder / "corpus" / label / f"{name}.wav").write_text(label + name)
        yield folder


def holds(path):
    """The manifest gives clips that can be paired, named and written, or is refused in one line."""
    try:
        dataset = load_dataset(path)
    except UserError as error:
        assert str(error).isprintable() and str(path) in str(error)
        return False
    assert dataset.clips and len({clip.clip_id for clip in dataset.clips}) == len(dataset.clips)
    assert all(clip.path.is_file() for clip in dataset.clips)
    assert all({clip.semantic_label, clip.prosody_label} <= set(LABELS) for clip in dataset.clips)
    assert all(warning.isprintable() for warning in dataset.warnings)
    json.dumps(dataset_identity(dataset), ensure_ascii=False).encode()
    for kind in KINDS:
        try:
            sample = build_pairs(dataset.clips, kind, both_directions=True)
        except UserError as error:
            assert str(error).isprintable()
            continue
        assert len({pair.pair_id for pair in sample.pairs}) == len(sample.pairs)
        json.dumps([sample.report, *map(pair_row, sample.pairs)], ensure_ascii=False).encode()
    return True


@settings(max_examples=200, deadline=None)
@given(csv_lines)
@example(",".join(COLUMNS))
def test_any_csv_gives_clips_or_one_line(folder, content):
    (folder / "x.csv").write_bytes(content.encode("utf-8", "surrogatepass"))
    holds(folder / "x.csv")


@settings(max_examples=200, deadline=None)
@given(json_lines)
def test_any_jsonl_gives_clips_or_one_line(folder, content):
    (folder / "x.jsonl").write_bytes(content.encode("utf-8", "surrogatepass"))
    holds(folder / "x.jsonl")


@settings(max_examples=200, deadline=None)
@given(as_bytes, st.sampled_from(["x.csv", "x.jsonl"]))
def test_any_bytes_give_clips_or_one_line(folder, content, name):
    (folder / name).write_bytes(content)
    holds(folder / name)


@settings(max_examples=100, deadline=None)
@given(st.lists(likely, min_size=1, max_size=6, unique_by=lambda row: row["clip_id"]))
def test_any_texts_folder_gives_clips_or_one_line(folder, rows):
    (folder / "corpus" / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    try:
        dataset = load_dataset(folder / "corpus")
    except UserError as error:
        assert str(error).isprintable()
        return
    assert dataset.clips and all(warning.isprintable() for warning in dataset.warnings)


def test_the_fuzzer_reaches_valid_manifests_too(folder):
    """Otherwise the rest would say little."""
    reached = set()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.lists(likely, min_size=1, max_size=3))
    def search(rows):
        (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
        reached.add(holds(folder / "x.jsonl"))

    search()
    assert reached == {True, False}
