"""A sound is decoded once while there is room, is never that of another file, and its file is hashed once."""

import json
import os
import time
from collections import Counter, OrderedDict

import numpy as np
import pytest
import soundfile

from pairs import load_dataset
from tests.commands import MODEL, call
from voicepatch import file_hashes
from voicepatch.audio import cache as module
from voicepatch.audio import decode as sound
from voicepatch.audio.cache import SoundCache
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_DATA
from voicepatch.report.sounds import _mp3

SECONDS = 0.5
NBYTES = int(SECONDS * 16_000) * 4


@pytest.fixture
def decoded(monkeypatch):
    """The paths that are decoded, each time."""
    paths, decode = [], module.decode
    monkeypatch.setattr(
        module, "decode", lambda content, path, *args: paths.append(path) or decode(content, path, *args)
    )
    return paths


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three files, written long ago as far as the program knows."""
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.full(NBYTES // 4, 0.1 * i), 16_000)
    later = time.time_ns() + 10**11
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: later)
    return paths


def test_a_sound_is_decoded_once_and_cannot_be_written_to(files, decoded):
    cache = SoundCache()
    first = cache.read(files[1])
    assert cache.read(files[1]) is first and cache.facts(files[1]) is first and decoded == [files[1]]
    assert first.n_samples == NBYTES // 4 and first.is_silent and first.sha256 == file_hashes.file_hash(files[1])
    with pytest.raises(ValueError, match="read-only"):
        first.waveform[0] = 1


def test_the_waveforms_used_last_stay_within_the_limit_and_of_the_others_the_facts(files, decoded):
    cache = SoundCache(limit=2 * NBYTES)
    for path in (files[0], files[1], files[0], files[2]):
        cache.read(path)
    assert [cache.facts(path).n_samples for path in files] == [NBYTES // 4] * 3 and len(decoded) == 3
    cache.read(files[0]), cache.read(files[2])
    assert len(decoded) == 3
    assert cache.read(files[1]).waveform[0] == pytest.approx(0.1, abs=1e-4) and len(decoded) == 4
    assert sum(sound.waveform.nbytes for sound in cache._sounds.values()) == cache._nbytes == 2 * NBYTES
    assert len(SoundCache(limit=0).read(files[0]).waveform) == NBYTES // 4


def test_a_file_that_changes_is_decoded_again(files, decoded):
    cache, before = SoundCache(), os.stat(files[0])
    old = cache.read(files[0])
    files[0].write_bytes(files[1].read_bytes())
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    new = cache.read(files[0])
    assert len(decoded) == 2 and new.waveform[0] == pytest.approx(0.1, abs=1e-4) != old.waveform[0]
    assert new.sha256 == file_hashes.file_hash(files[0]) == file_hashes.file_hash(files[1]) != old.sha256


def test_a_file_written_a_moment_ago_may_change_unnoticed_and_is_not_kept(files, decoded, monkeypatch):
    cache, status = SoundCache(), os.stat(files[0])
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: status.st_ctime_ns + 10**9)
    cache.read(files[0]), cache.read(files[0])
    assert len(decoded) == 2 and (status.st_ino, status.st_ctime_ns) not in {(s[1], s[4]) for s in file_hashes._hashes}


def test_a_sound_longer_than_the_limit_is_refused_though_it_is_known(files):
    cache = SoundCache()
    cache.read(files[0])
    with pytest.raises(UserError, match="--max-seconds"):
        cache.read(files[0], max_seconds=0.4)
    assert cache.read(files[0], max_seconds=SECONDS).n_samples == NBYTES // 4


def test_a_pipe_in_place_of_a_file_is_no_clip_and_does_not_hang(files):
    files[0].unlink()
    os.mkfifo(files[0])
    with pytest.raises(UserError, match="not a regular file"):
        SoundCache().read(files[0])
    with pytest.raises(OSError, match="not a regular file"):
        file_hashes.file_hash(files[0])


def test_all_controls_of_a_run_decode_and_hash_each_clip_once(decoded, monkeypatch, tmp_path):
    """Checks, model, report and every control ask for the sounds of the same pairs; the report hashes all data."""
    for name, empty in {"_sounds": OrderedDict(), "_facts": {}, "_nbytes": 0}.items():
        monkeypatch.setattr(module._cache, name, empty)
    _mp3.cache_clear()
    hashed, sha256 = [], file_hashes._sha256
    n_decoded, decode = [], sound._decode
    monkeypatch.setattr(sound, "_decode", lambda *args: n_decoded.append(1) or decode(*args))  # whoever asks
    monkeypatch.setattr(file_hashes, "_hashes", {})
    monkeypatch.setattr(file_hashes, "_sha256", lambda content: hashed.append(sha256(content)) or hashed[-1])
    call("control", "--kind", "all", "--max-pairs", "3", "--layers", "0", *MODEL, "--out", tmp_path / "run")
    data = {clip.clip_id: clip.path for clip in load_dataset(DEMO_DATA).clips}
    lists = list(tmp_path.glob("run/pair_list_*.jsonl"))
    rows = [json.loads(line) for path in lists for line in path.read_text(encoding="utf-8").splitlines()]
    used = {data[row[f"clip_{side}"]] for row in rows for side in "ab"}
    assert len(lists) > 3 and len(used) > 6
    times = Counter(decoded)
    assert used <= set(times) and set(times.values()) == {1} and len(n_decoded) == len(times)
    assert _mp3.cache_info().misses > 6, "the report has no sounds: this test has lost its object"
    assert {sha256(path.open("rb")) for path in data.values()} <= set(hashed) and len(set(hashed)) == len(hashed)
