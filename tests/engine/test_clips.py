"""Clips are held within a bound, read ahead, and made again rather than wrong."""

import threading
from collections import Counter
from dataclasses import replace

import pytest

from interventions import load_intervention, load_subject
from pairs import build_pairs
from voicepatch.engine import sounds as sounds_module
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_MODEL
from voicepatch.runs.pair_loop import run_pairs


@pytest.fixture(scope="module")
def pairs(demo_data):
    return build_pairs(demo_data.clips, "semantic", max_pairs=40).pairs[:12]


@pytest.fixture
def subject():
    return load_subject(DEMO_MODEL, device="cpu")


def records(subject, pairs, **settings):
    return list(run_pairs(subject, load_intervention("patch"), pairs, layers=[0, 5], **settings))


@pytest.fixture
def encoded(subject, monkeypatch):
    """How often each number of mel frames went through the encoder, as a list that grows."""
    calls, encode = [], subject.model.encode
    monkeypatch.setattr(subject.model, "encode", lambda *args: calls.append(args) or encode(*args), raising=False)
    return calls


def distinct(pairs):
    return {clip.clip_id for pair in pairs for clip in (pair.a, pair.b)}


def test_a_clip_is_encoded_once_and_forgotten_after_its_last_pair(subject, pairs, encoded):
    store, seen = subject.clips, []
    with store.for_pairs(pairs):
        for number, pair in enumerate(pairs):
            store.get(pair.a), store.get(pair.b)
            store.done(pair)
            seen.append(set(store._inputs))
            assert seen[-1] <= distinct(pairs[number + 1 :])
    assert len(encoded) == len(distinct(pairs)) and seen[-1] == set()


def test_without_room_everything_is_made_again_and_is_the_same(subject, pairs, encoded):
    free = records(subject, pairs)
    once = len(encoded)
    subject.clips.limit = 0
    subject.clips.make_room()
    assert records(subject, pairs) == free
    assert len(encoded) - once == 2 * len(pairs) > once
    assert subject.clips.nbytes == 0


def test_between_pairs_the_store_is_within_its_limit_and_what_is_needed_last_goes_first(subject, pairs):
    store = subject.clips
    a, b, c = list(dict.fromkeys(clip for pair in pairs for clip in (pair.a, pair.b)))[:3]
    needed = [replace(pairs[0], a=x, b=y) for x, y in ((a, b), (c, c), (a, a), (b, b))]
    with store.for_pairs(needed):
        for clip in (a, b):
            subject.engine.record(store.get(clip))
        store.limit = store.nbytes - 1
        store.done(needed[0])
        assert set(store._inputs) == {a.clip_id} and 0 < store.nbytes <= store.limit


def test_records_count_towards_the_limit(subject, pairs):
    store = subject.clips
    clip = store.get(pairs[0].a)
    frames = store.nbytes
    subject.engine.record(clip)
    assert store.nbytes == frames + subject.engine.recordings.nbytes(clip) > 10 * frames


def test_what_a_variant_heard_beside_its_pairs_is_forgotten_too(subject, pairs, demo_data):
    mean = load_intervention("mean")
    for _ in run_pairs(subject, mean, pairs[:2], layers=[3], clips=demo_data.clips):
        pass
    assert not subject.clips._inputs


def test_frames_are_kept_for_the_next_experiment_and_go_first_where_there_is_no_room(subject, pairs, encoded):
    records(subject, pairs)
    once = len(encoded)
    assert once == len(distinct(pairs)) and not subject.clips._inputs
    again = records(subject, pairs)
    assert len(encoded) == once and again
    subject.clips.limit = 0
    subject.clips.make_room()
    assert subject.clips.nbytes == 0


class TestReadingAhead:
    def test_sounds_are_read_in_another_thread_once_each(self, subject, pairs, monkeypatch):
        threads, read = Counter(), sounds_module.read_sound
        monkeypatch.setattr(
            sounds_module,
            "read_sound",
            lambda *args: threads.update([threading.current_thread().name]) or read(*args),
        )
        records(subject, pairs)
        assert sum(threads.values()) == len(distinct(pairs))
        assert [name for name in threads if name.startswith("sound")] == list(threads)

    def test_no_more_than_a_few_are_read_before_they_are_asked_for(self, subject, pairs, monkeypatch):
        started, read = [], sounds_module.read_sound
        monkeypatch.setattr(sounds_module, "read_sound", lambda path, *args: started.append(path) or read(path, *args))
        with subject.clips.for_pairs(pairs):
            subject.clips.get(pairs[0].a)
            subject.clips.sounds._prefetcher._pool.shutdown(wait=True)
            assert len(started) == 1 + sounds_module.N_PREFETCHED < len(distinct(pairs))

    def test_an_unreadable_clip_stops_its_own_pair_and_none_before(self, subject, pairs, tmp_path):
        broken = tmp_path / "broken.wav"
        broken.write_text("no sound", encoding="utf-8")
        late = replace(pairs[2], a=replace(pairs[2].a, clip_id="broken", path=broken))
        rows = run_pairs(subject, load_intervention("patch"), [*pairs[:2], late], layers=[0])
        assert len([next(rows), next(rows)]) == 2
        with pytest.raises(UserError, match="broken.wav"):
            next(rows)
