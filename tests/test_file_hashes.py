"""The hash of a large file is kept between commands, and never that of another content."""

import hashlib
import os

import pytest

from voicepatch import file_hashes
from voicepatch.file_hashes import file_hash


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large and was written long ago; each command has its own memory and the same cache."""
    monkeypatch.setattr(file_hashes, "LARGE", 4)
    monkeypatch.setattr(file_hashes, "RESOLUTION", -(10**9))
    monkeypatch.setattr(file_hashes, "CACHE", tmp_path / "cache")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"large")
    return path


def by_next_command(path, monkeypatch, may_read=True):
    monkeypatch.setattr(file_hashes, "_hashes", {})
    if not may_read:
        monkeypatch.setattr(file_hashes, "_sha256", lambda content: pytest.fail("the file was read again"))
    return file_hash(path)


def test_a_large_file_is_read_by_the_first_command_alone(large, monkeypatch):
    expected = hashlib.sha256(b"large").hexdigest()
    assert by_next_command(large, monkeypatch) == expected
    assert by_next_command(large, monkeypatch, may_read=False) == expected


def test_a_changed_file_is_noticed_even_with_its_size_and_time_put_back(large, monkeypatch):
    before, status = by_next_command(large, monkeypatch), large.stat()
    large.write_bytes(b"LARGE")
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert large.stat().st_mtime_ns == status.st_mtime_ns and large.stat().st_size == status.st_size
    assert by_next_command(large, monkeypatch) == hashlib.sha256(b"LARGE").hexdigest() != before


def test_a_file_put_in_its_place_is_another_one(large, monkeypatch):
    by_next_command(large, monkeypatch)
    other = large.with_name("other")
    other.write_bytes(b"other")
    other.replace(large)
    assert by_next_command(large, monkeypatch) == hashlib.sha256(b"other").hexdigest()


def test_a_file_that_was_just_written_is_read_again(large, monkeypatch):
    monkeypatch.setattr(file_hashes, "RESOLUTION", 60 * 10**9)
    by_next_command(large, monkeypatch)
    assert not (large.parent / "cache").exists()


def test_without_a_cache_the_file_is_read_again(large, monkeypatch):
    (large.parent / "cache").write_text("a file where the folder should be")
    expected = hashlib.sha256(b"large").hexdigest()
    assert by_next_command(large, monkeypatch) == by_next_command(large, monkeypatch) == expected


@pytest.mark.parametrize("content", ["", "not a hash", "0" * 63, "\x00" * 64, "é"])
def test_what_is_no_hash_in_the_cache_is_ignored(large, monkeypatch, content):
    expected = by_next_command(large, monkeypatch)
    (kept,) = (large.parent / "cache" / "hashes").iterdir()
    kept.write_text(content, encoding="latin-1")
    assert by_next_command(large, monkeypatch) == expected


def test_a_small_file_leaves_nothing_behind(large, monkeypatch):
    monkeypatch.setattr(file_hashes, "LARGE", 6)
    by_next_command(large, monkeypatch)
    assert not (large.parent / "cache").exists()
