"""The hash of a data set is that of its content."""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pairs import dataset_hash, dataset_identity, load_dataset
from tests.pairs.made_data import HEADER, ROWS, manifest, sound
from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash

# --- the identity of a data set


def test_the_hash_is_of_the_content_not_of_its_place_or_order(folder, tmp_path_factory):
    first = dataset_hash(load_dataset(manifest(folder, *ROWS)))
    moved = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.copytree(folder, moved)
    assert dataset_hash(load_dataset(manifest(moved, *reversed(ROWS)))) == first
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_the_hash_of_a_folder_does_not_depend_on_its_place(corpus, tmp_path_factory):
    first = dataset_hash(load_dataset(corpus))
    assert dataset_hash(load_dataset(shutil.move(corpus, tmp_path_factory.mktemp("elsewhere") / "name"))) == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c3,", "c4,"),
        ("t2", "t9"),
        ("gift", "goat"),
        ("happy,sad", "angry,sad"),
        ("happy,sad", "happy,angry"),
        (",f1", ",m1"),
    ],
)
def test_the_hash_changes_with_every_value_of_a_row(folder, old, new):
    first = dataset_hash(load_dataset(manifest(folder, *ROWS)))
    assert dataset_hash(load_dataset(manifest(folder, *ROWS[:2], ROWS[2].replace(old, new)))) != first


def test_the_hash_changes_with_a_further_column(folder):
    first = load_dataset(manifest(folder, *(f"{row},old" for row in ROWS), header=f"{HEADER},age"))
    other = load_dataset(manifest(folder, *(f"{row},new" for row in ROWS), header=f"{HEADER},age"))
    unnamed = load_dataset(manifest(folder, *ROWS))
    assert len({dataset_hash(one) for one in (first, other, unnamed)}) == 3
    assert dataset_identity(first)["columns"] == ["age"] and "columns" not in dataset_identity(unnamed)


def test_the_hash_changes_with_one_sample_of_sound(folder):
    path = manifest(folder, *ROWS)
    first = dataset_hash(load_dataset(path))
    sound(folder / "c3.wav", 0.31)
    assert dataset_hash(load_dataset(path)) != first


def test_a_file_that_vanished_has_no_hash(folder):
    dataset = load_dataset(manifest(folder, *ROWS))
    (folder / "c2.wav").unlink()
    with pytest.raises(UserError, match=r"c2\.wav: cannot be read \(No such file or directory\)"):
        dataset_identity(dataset)
    skipped = dataset_identity(dataset, skip_bad_clips=True)["sha256"]
    (folder / "c2.wav").write_bytes(b"back")
    assert dataset_hash(replace(dataset)) != skipped


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a.wav"
    for content in (b"", b"one", b"two", b"two" * 10**6):
        path.write_bytes(content)
        assert file_hash(path) == file_hash(path) == hashlib.sha256(content).hexdigest()


# --- the package


def test_the_package_imports_no_tensor_library():
    code = "import sys, pairs; print([m for m in ('torch', 'pandas', 'numpy', 'soundfile') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
