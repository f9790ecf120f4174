"""A Hugging Face data set on disk gives the clips of its manifest."""

import json
import shutil

import pytest

from pairs import build_pairs, load_dataset
from pairs.hugging_face import is_hugging_face, unpack
from tests.commands import call
from tests.pairs.made_data import ROWS, manifest, records, refused, sound
from voicepatch.errors import BAD_INPUT, BAD_USAGE
from voicepatch.paths import DEMO_DATA

EMOTIONS = ["neutral", "happy", "sad", "angry", "surprised"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "voicepatch"


def as_data_set(rows, folder, column="audio"):
    """Rows of a manifest as a data set: their sounds inside, and the voice's label a number with a name."""
    import datasets
    from datasets import Audio, ClassLabel, Value

    with_sounds = []
    for row in rows:
        sounds = {"bytes": (folder / row["path"]).read_bytes(), "path": row["path"]}
        others = {name: value for name, value in row.items() if name != "path"}
        with_sounds.append({**others, column: sounds, "prosody_label": EMOTIONS.index(row["prosody_label"])})
    features = {name: Value("string") for name in with_sounds[0]} | {
        column: {"bytes": Value("binary"), "path": Value("string")},
        "prosody_label": ClassLabel(names=EMOTIONS),
    }
    made = datasets.Dataset.from_list(with_sounds, features=datasets.Features(features))
    return made.cast_column(column, Audio(decode=False)).cast_column(column, Audio())


def saved(made, folder, layout):
    import datasets

    if layout == "parquet":
        made.to_parquet(str(folder / "set.parquet"))
        return folder / "set.parquet"
    if layout == "arrow":
        made.save_to_disk(folder / "set")
    if layout == "splits":
        half = len(made) // 2
        parts = {"train": made.select(range(half)), "test": made.select(range(half, len(made)))}
        datasets.DatasetDict(parts).save_to_disk(folder / "set")
    if layout == "parquet folder":
        (folder / "set" / "data").mkdir(parents=True)
        half = len(made) // 2
        for name, part in {"train": range(half), "test": range(half, len(made))}.items():
            made.select(part).to_parquet(str(folder / "set" / "data" / f"{name}-00000-of-00001.parquet"))
    return folder / "set"


def same_but_for_sounds(one, other):
    """Whether two data sets have the same clips, whose sounds have the same content."""
    facts = [
        [(clip.clip_id, clip.text_id, clip.text, clip.semantic_label, clip.prosody_label, clip.speaker) for clip in of]
        for of in (one.clips, other.clips)
    ]
    sounds = [[clip.path.read_bytes() for clip in of] for of in (one.clips, other.clips)]
    return facts[0] == facts[1] and sounds[0] == sounds[1]


@pytest.mark.datasets
@pytest.mark.parametrize("layout", ["arrow", "parquet", "splits", "parquet folder"])
def test_each_layout_gives_the_clips_of_the_manifest(folder, layout):
    source = saved(as_data_set(records(), folder), folder, layout)
    dataset = load_dataset(source)
    assert same_but_for_sounds(dataset, load_dataset(manifest(folder, *[row.replace("Oh, a", "Oh a") for row in ROWS])))
    assert dataset.source == source and dataset.name == "set"
    if layout in ("splits", "parquet folder"):
        assert sorted(clip.columns["split"] for clip in dataset.clips) == ["test", "test", "train"]
        assert "are joined" in dataset.warnings[0] and "train (1)" in dataset.warnings[0]
    else:
        assert dataset.warnings == ()


@pytest.mark.datasets
def test_sounds_are_written_once_until_the_data_change(folder, cache):
    source = saved(as_data_set(records(), folder), folder, "arrow")
    load_dataset(source)
    (made,) = cache.iterdir()
    (made / "rows.jsonl").write_text((made / "rows.jsonl").read_text().replace("noon", "one"))
    assert load_dataset(source).clips[0].text == "It is one."
    shutil.rmtree(source)
    saved(as_data_set(records()[:2], folder), folder, "arrow")
    assert [clip.text for clip in load_dataset(source).clips] == ["It is noon."] * 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.datasets
@pytest.mark.parametrize("damage", ["cut", "sound", "not json"])
def test_damage_of_what_was_unpacked_is_an_error(folder, cache, damage):
    source = saved(as_data_set(records(), folder), folder, "arrow")
    load_dataset(source)
    (made,) = cache.iterdir()
    if damage == "sound":
        (made / "row000002.wav").unlink()
    else:
        rows = (made / "rows.jsonl").read_text().splitlines(keepends=True)
        (made / "rows.jsonl").write_text("".join(rows[:2]) if damage == "cut" else "{")
    refused(source, "what was unpacked of .*set is damaged", "delete this folder")


@pytest.mark.datasets
def test_what_was_unpacked_has_the_permissions_of_other_folders_and_is_not_damaged_without_them(
    folder, cache, monkeypatch
):
    source = saved(as_data_set(records(), folder), folder, "parquet")
    load_dataset(source)
    (made,) = cache.iterdir()
    assert made.stat().st_mode == cache.stat().st_mode

    def denied(path, *args, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(made), "read_text", denied)
    refused(source, r"cannot be read \(Permission denied\); pass another HF_HOME")


@pytest.mark.datasets
def test_an_empty_data_set_and_a_column_that_would_be_lost_are_errors(folder):
    made = as_data_set(records(), folder)
    refused(saved(made.select([]), folder, "arrow"), "no rows|not a readable")
    both = made.add_column("path", ["x"] * 3).add_column("original_path", ["y"] * 3)
    refused(saved(both, folder, "parquet"), "column path would be called original_path")


@pytest.mark.datasets
def test_missing_ids_are_the_number_of_the_row_and_the_text(folder):
    rows = [{name: value for name, value in row.items() if name not in ("clip_id", "text_id")} for row in records()]
    dataset = load_dataset(saved(as_data_set(rows, folder), folder, "arrow"))
    assert [clip.clip_id for clip in dataset.clips] == ["row000001", "row000002", "row000003"]
    assert [clip.text_id for clip in dataset.clips] == ["It is noon.", "It is noon.", "Oh a gift!"]
    assert len(build_pairs(dataset.clips, "prosody").pairs) == 1
    assert [line.split(" is ")[0] for line in dataset.warnings] == ["the clip_id of a clip", "the text_id of a clip"]


@pytest.mark.datasets
def test_columns_have_the_names_that_are_given(folder):
    rows = [{("transcription" if name == "text" else name): value for name, value in row.items()} for row in records()]
    made = as_data_set(rows, folder, "recording").add_column("path", ["x", "y", "z"]).add_column("vector", [[1.0]] * 3)
    source = saved(made, folder, "arrow")
    dataset = load_dataset(source, columns={"text": "transcription", "path": "recording"})
    assert dataset.clips[0].text == "It is noon." and dataset.clips[0].columns == {"original_path": "x"}
    assert dataset.warnings == ("columns that hold neither text nor numbers are not used: vector",)
    refused(source, "no column text", "transcription")
    refused(source, "no column words", columns={"text": "words"})


@pytest.mark.datasets
def test_a_data_set_without_one_sound_a_clip_is_an_error(folder):
    made = as_data_set(records(), folder)
    refused(saved(made.remove_columns("audio"), folder, "arrow"), "no column with sounds", "--columns path=NAME")
    two = made.add_column("other", made["clip_id"]).rename_column("audio", "first")
    two = two.map(lambda row: {"second": {"bytes": b"x", "path": None}})
    shutil.rmtree(folder / "set")
    source = saved(two, folder, "arrow")
    refused(source, "several columns with sounds", "first, second")
    refused(source, "no column third", columns={"path": "third"})
    assert len(load_dataset(source, columns={"path": "first"}).clips) == 3


@pytest.mark.datasets
def test_a_missing_and_a_broken_sound_are_named(folder, tmp_path):
    import datasets

    made = as_data_set(records(), folder).cast_column("audio", datasets.Audio(decode=False))
    rows = [{**row, "audio": {"bytes": None, "path": "gone.wav"}} for row in made]
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "set.parquet"))
    refused(folder / "set.parquet", "row 1", "prosody_label '1' is no label")
    names = [{**row, "prosody_label": EMOTIONS[row["prosody_label"]]} for row in rows]
    datasets.Dataset.from_list(names).to_parquet(str(folder / "set.parquet"))
    refused(folder / "set.parquet", "row 1", "no audio file at .*gone.wav")
    sound(folder / "gone.wav")
    assert len(load_dataset(folder / "set.parquet").clips) == 3
    broken = made.map(lambda row: {"audio": {"bytes": b"no sound", "path": "c.wav"}})
    source = saved(broken, folder, "arrow")
    output = call("patch", "--kind", "prosody", "--data", source, "--out", tmp_path / "run", status=BAD_INPUT)
    assert "row00000" in output and "cannot be read: clip c2" in output.splitlines()[-1]


@pytest.mark.datasets
@pytest.mark.parametrize(("name", "content"), [("set.parquet", "x"), ("set/state.json", "{}")])
def test_what_is_no_data_set_is_an_error(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    refused((folder / name) if name.endswith("parquet") else folder / "set", "not a readable Hugging Face data set")


@pytest.mark.datasets
def test_records_are_those_of_the_demo(tmp_path):
    clips = load_dataset(DEMO_DATA).clips
    rows = [
        {
            "clip_id": clip.clip_id,
            "path": str(clip.path),
            "text_id": clip.text_id,
            "transcription": clip.text,
            "semantic_label": clip.semantic_label,
            "prosody_label": clip.prosody_label,
            "speaker": clip.speaker,
            "text_type": clip.text_type,
        }
        for clip in clips
    ]
    source = saved(as_data_set(rows, tmp_path), tmp_path, "parquet")
    common = ("--kind", "prosody", "--max-pairs", 4, "--no-need", "--no-figures")
    call("patch", *common, "--out", tmp_path / "plain")
    call("patch", *common, "--data", source, "--columns", "text=transcription", "--out", tmp_path / "unpacked")
    first, second = ((tmp_path / run / "patching_records_prosody.jsonl").read_text() for run in ("plain", "unpacked"))
    assert first == second
    config = json.loads((tmp_path / "unpacked" / "patching_config.json").read_text())
    assert config["data"]["renamed"] == {"text": "transcription"} and config["data"]["source"] == str(source)


def test_several_folders_with_parquet_files_are_an_error(folder):
    for name in ("en", "de"):
        (folder / "set" / name).mkdir(parents=True)
        (folder / "set" / name / "0000.parquet").write_bytes(b"")
    refused(folder / "set", "several folders", "de, en")


def test_without_the_package_one_line_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (folder / "set").mkdir()
    (folder / "set" / "state.json").write_text("{}")
    assert is_hugging_face(folder / "set")
    with pytest.raises(Exception, match="pip install -r requirements-datasets.txt") as caught:
        unpack(folder / "set")
    assert caught.value.status == BAD_USAGE
