"""A corpus is recognised wherever and however often its files lie; what is no clip of it is counted, not guessed."""

import json
import os
import re
from pathlib import Path

import pytest

from pairs import dataset_hash, dataset_identity, load_dataset
from pairs.corpora import recognise
from pairs.corpora.corpus import declared_corpora
from pairs.corpora.read import read_corpus
from pairs.corpora.tree import walk
from tests.pairs.corpora import names
from voicepatch.errors import UserError
from voicepatch.types.task import default_task

ACTOR = [path for path in names.ravdess() if path.startswith("Actor_07/")]


def read(paths, **sizes):
    tree = names.tree(paths, **sizes)
    return read_corpus(tree, recognise(tree), default_task())


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), f"{word!r} not in {message!r}"


# --- copies, other names, parts


@pytest.mark.parametrize(("paths", "copy"), [(names.tess, "tess data/TESS data/"), (names.ravdess, "audio_speech/")])
def test_a_download_that_holds_everything_twice_is_read_once(paths, copy):
    once = list(paths())
    clips, _, recognised = read([*once, *(copy + path for path in once)])
    single, _, of_single = read(once)
    assert clips == single and recognised.pairs == of_single.pairs
    assert recognised.left_out.pop("further copies of a clip") == len(once)
    assert recognised.left_out == of_single.left_out


def test_two_files_of_one_name_and_another_size_are_refused():
    with pytest.raises(UserError, match=r"Actor_01/(.*)\.wav and copy/\1\.wav .* differ in size"):
        read(
            ["Actor_01/03-01-03-01-01-01-01.wav"],
            **{"copy/03-01-03-01-01-01-01.wav": 12_345},
        )
    # of an emotion that no pair has, either copy is as good
    read(["03-01-03-01-01-01-01.wav", "03-01-02-01-01-01-01.wav"], **{"copy/03-01-02-01-01-01-01.wav": 12_345})


def test_the_misspelt_speaker_of_kaggles_tess_is_the_same_clip():
    paths = ["OAF_neutral/OA_bite_neutral.wav", "OAF_happy/OAF_bite_happy.wav"]
    clips, _, recognised = read([*paths, "flat/OAF_neutral/OAF_bite_neutral.wav"])
    assert [clip.clip_id for clip in clips] == ["OAF_bite_happy", "OAF_bite_neutral"]
    assert recognised.left_out == {"further copies of a clip": 1} and recognised.pairs["prosody"]["same_speaker"] == 1


def test_one_and_two_letters_for_no_level_are_one_clip_of_crema_d():
    clips, _, recognised = read(
        ["AudioWAV/1040_ITH_SAD_X.wav", "AudioWAV/1001_ITH_SAD_XX.wav", "b/1040_ITH_SAD_XX.wav"]
    )
    assert [clip.clip_id for clip in clips] == ["1001_ITH_SAD_XX", "1040_ITH_SAD_XX"]


def test_songs_and_videos_of_ravdess_are_left_out():
    song = [path for path in names.ravdess("02") if path.startswith("Actor_07/")]
    video = [path.replace("/03-", "/01-") for path in ACTOR[:5]]
    clips, _, recognised = read([*ACTOR, *song, *video])
    assert len(clips) == 36 and all("-01-" in clip.clip_id[2:6] for clip in clips)
    assert recognised.left_out["song"] == len(song) and recognised.left_out["sound of a video"] == 5


def test_a_part_of_a_download_is_said_to_be_one():
    _, warnings, recognised = read(ACTOR)
    assert "60 of the 1,440 recordings of a full download of RAVDESS are there" in warnings
    assert recognised.lines() == (
        "RAVDESS, speech: 36 of 60 wav files are clips; speakers: 1; texts: 2",
        "left out: 8 calm; 8 fearful; 8 disgust",
        "256 prosody pairs possible (256 with --any-speaker), 0 semantic pairs possible (0 with --any-speaker)",
    )


def test_a_few_other_names_are_listed_and_many_are_no_corpus():
    _, warnings, recognised = read([*ACTOR, "my notes.wav"])
    assert recognised.left_out["of another name"] == 1 and any("my notes.wav" in warning for warning in warnings)
    with pytest.raises(UserError, match="70 wav files, of which 60 as in RAVDESS"):
        read([*ACTOR, *(f"{i}.wav" for i in range(10))])
    with pytest.raises(UserError, match="60 as in RAVDESS, 2,800 as in TESS"):
        recognise(names.tree([*ACTOR[:60], *names.tess(), *(f"{i}.wav" for i in range(400))]))


def test_a_folder_of_other_names_is_no_corpus():
    assert recognise(names.tree(["a.wav", "b/c.WAV", "1001_DFA_ANG_XX.mp3"])) is None
    assert recognise(names.tree([])) is None


def test_digits_of_other_scripts_are_other_names():
    assert recognise(names.tree(["٠٣-01-05-01-01-01-01.wav", "03-01-05-01-01-01-01\n.wav"])) is None


def test_only_emotions_that_are_no_label_are_refused():
    with pytest.raises(UserError, match="RAVDESS, but no clip of it is usable: 1 calm"):
        read(["03-01-02-01-01-01-01.wav"])


def test_no_name_is_that_of_two_corpora():
    samples = [next(iter(paths())) for paths in (names.ravdess, names.crema_d, names.tess, names.jl_corpus, names.emis)]
    samples += ["0011_000351.wav", "03a01Wa.wav"]
    for sample in samples:
        stem = sample.rpartition("/")[2][:-4]
        assert sum(bool(corpus.pattern.fullmatch(stem)) for corpus in declared_corpora()) == 1, sample


# --- on disk


def test_what_systems_and_zip_files_leave_behind_is_skipped(tmp_path):
    root = names.write(tmp_path / "RAVDESS", ["a copy/Audio_Speech/" + path for path in ACTOR])
    name = ACTOR[0].rpartition("/")[2]
    names.write(root, [f"a copy/._{name}", f"__MACOSX/{name}", ".hidden/x.wav", ".DS_Store", "README.TXT"])
    dataset = load_dataset(root)
    assert dataset.name == "RAVDESS" and len(dataset.clips) == 36
    assert dataset.corpus.left_out == {"calm": 8, "fearful": 8, "disgust": 8}
    assert all(clip.path.is_file() for clip in dataset.clips)


def test_the_same_download_is_the_same_data_wherever_it_lies(tmp_path):
    flat = names.write(tmp_path / "flat", [path.partition("/")[2] for path in ACTOR])
    nested = names.write(tmp_path / "nested", ["Audio/" + path for path in ACTOR] + ACTOR)
    assert dataset_hash(load_dataset(flat)) == dataset_hash(load_dataset(nested))
    (flat / ACTOR[0].partition("/")[2]).write_bytes(b"another sound")
    assert dataset_hash(load_dataset(flat)) != dataset_hash(load_dataset(nested))


def test_the_run_records_what_was_recognised(tmp_path):
    identity = dataset_identity(load_dataset(names.write(tmp_path, ACTOR)))
    assert identity == json.loads(json.dumps(identity))  # as it is read back from the configuration
    assert identity["corpus"]["name"] == "RAVDESS" and identity["corpus"]["n_wavs"] == 60
    assert identity["corpus"]["pairs"]["prosody"] == {"same_speaker": 256, "any_speaker": 256}
    assert any("count as neutral" in warning for warning in identity["warnings"])


def test_a_manifest_in_the_folder_comes_before_its_names(tmp_path):
    names.write(tmp_path, ACTOR)
    (tmp_path / "manifest.csv").write_text(
        f"clip_id,path,text_id,text,semantic_label,prosody_label\nc1,{ACTOR[0]},t,Hm.,sad,happy\n"
    )
    dataset = load_dataset(tmp_path)
    assert [clip.clip_id for clip in dataset.clips] == ["c1"] and dataset.corpus is None


def test_git_lfs_pointers_are_refused_with_the_way_out(tmp_path):
    root = names.write(tmp_path, ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_HAP_XX.wav"])
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 80000\n"
    (root / "AudioWAV" / "1001_DFA_HAP_XX.wav").write_text(pointer)
    refused(root, "1001_DFA_HAP_XX.wav", "Git-LFS pointer", "1 of 2 clips", "git lfs pull")


def test_empty_files_and_links_to_nothing_are_left_out(tmp_path):
    root = names.write(tmp_path, ACTOR)
    kept = [path for path in ACTOR if path.split("-")[2] == "03"]
    (root / kept[0]).write_bytes(b"")
    (root / kept[1]).unlink()
    (root / kept[1]).symlink_to("annexed-elsewhere")
    dataset = load_dataset(root)
    assert dataset.corpus.left_out["empty, or links to nothing"] == 2 and len(dataset.clips) == 34


def test_links_that_lead_in_a_circle_are_walked_once(tmp_path):
    root = names.write(tmp_path / "data", ACTOR)
    (root / "Actor_07" / "up").symlink_to(root)
    (tmp_path / "link").symlink_to(root)
    assert len(walk(tmp_path).files) == 60


def test_a_link_that_leads_to_itself_is_left_out(tmp_path):
    root = names.write(tmp_path / "data", ACTOR)
    kept = next(path for path in ACTOR if path.split("-")[2] == "03")
    (root / "loop").symlink_to(root / "loop")
    (root / kept).unlink()
    (root / kept).symlink_to(root / kept)
    dataset = load_dataset(root)
    assert dataset.corpus.left_out["empty, or links to nothing"] == 1 and len(dataset.clips) == 35


def test_a_name_that_is_not_in_utf_8_is_named(tmp_path):
    root = names.write(tmp_path / "data", ACTOR)
    first, second = (root / path for path in ACTOR[:2])
    bad = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(bad)
    os.rename(first, os.path.join(bad, os.fsencode(first.name)))
    os.rename(second, os.fsencode(second.parent) + b"/\xff.wav")
    dataset = load_dataset(root)
    assert r"not named as RAVDESS names its files, left out: Actor_07/\xff.wav" in dataset.warnings
    json.dumps(dataset_identity(dataset), ensure_ascii=False).encode()
    renamed = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.rename(renamed)
    refused(renamed, r"caf\\xe9: its path is not in UTF-8; rename")


def test_a_folder_that_is_nothing_known_is_refused_with_what_it_could_be(tmp_path):
    names.write(tmp_path, ["a.wav"])
    refused(tmp_path, "no text.jsonl, manifest.csv or manifest.jsonl", "cli.py corpora")
