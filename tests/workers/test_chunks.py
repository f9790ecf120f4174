"""The pairs of a run are cut into chunks, whose records come in the order of the pairs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs import Clip, Pair, build_pairs
from voicepatch.errors import UserError
from voicepatch.workers.pool import ANSWERS_AT_ONCE, CHUNKS_AHEAD, MAX_CHUNK, PoolRun, WorkerPool, cut
from voicepatch.workers.resources import Resources
from voicepatch.workers.worker import PairResult, WorkerInfo

CLIP = Clip("c", "c.wav", "t", "text", "happy", "sad")


def make_pairs(numbers):
    """A pair for each (a, b), of clips that are called so."""
    clips = {n: replace(CLIP, clip_id=str(n)) for pair in numbers for n in pair}
    return [Pair(f"{i}:{a}-{b}", "semantic", clips[a], clips[b], "sad") for i, (a, b) in enumerate(numbers)]


def n_clips(pairs):
    return len({clip.clip_id for pair in pairs for clip in (pair.a, pair.b)})


class TestChunks:
    @given(numbers=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=300), n=st.integers(1, 40))
    def test_they_are_the_pairs_in_order_and_no_chunk_is_too_long(self, numbers, n):
        pairs = make_pairs(numbers)
        chunks = cut(pairs, n)
        assert [pair for chunk in chunks for pair in chunk] == pairs
        assert all(0 < len(chunk) <= 2 * MAX_CHUNK for chunk in chunks)

    def test_they_are_cut_where_no_clip_is_needed_on_both_sides(self):
        groups = [7, 8, 7, 7, 8, 8, 7, 8, 7]
        pairs = make_pairs([(group, 100 + 100 * group + i) for group, n in enumerate(groups) for i in range(n)])
        assert [len(chunk) for chunk in cut(pairs, 3)] == groups

    def test_every_worker_has_some_of_a_few_pairs(self):
        assert len(cut(make_pairs([(i, 100 + i) for i in range(16)]), 8)) >= 4

    @pytest.mark.parametrize(("kind", "n", "extra"), [("prosody", 2, 0), ("prosody", 8, 0), ("semantic", 2, 0)])
    def test_the_demos_pairs_cost_no_recording_more(self, demo_data, kind, n, extra):
        pairs = build_pairs(demo_data.clips, kind, 100).pairs
        assert len(cut(pairs, n)) >= n and sum(map(n_clips, cut(pairs, n))) == n_clips(pairs)


class FakeDeath(Exception):
    pass


class FakeStream:
    """What the call of a worker gives: a result for each pair, then the death of the worker if it is `deadly`."""

    def __init__(self, pairs, worker, deadly):
        self.pairs, self.begun, self.cancelled = pairs, 0, False
        self.results = iter([PairResult([{"pair_id": pair.pair_id}], None, [], "host", worker) for pair in pairs])
        if deadly:
            self.results = iter([next(self.results), next(self.results), FakeDeath("killed")])

    def __next__(self):
        self.begun += 1
        return next(self.results)


def fake_pool(n, deadly=None):
    """A pool of `n` workers without Ray, and the streams of its calls; the call with number `deadly` dies."""
    streams = []

    def handle(worker):
        def remote(job, pairs):
            streams.append(FakeStream(pairs, worker, deadly == len(streams)))
            return streams[-1]

        return SimpleNamespace(run=SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=remote)))

    def get(result):
        if isinstance(result, FakeDeath):
            raise result
        return result

    ray = SimpleNamespace(
        get=get,
        wait=lambda references, **_: (references, []),
        cancel=lambda stream: setattr(stream, "cancelled", True),
        exceptions=SimpleNamespace(RayError=FakeDeath, RayTaskError=KeyError),
    )
    workers = [WorkerInfo("host", number, "cpu", "float32", {}, {}) for number in range(n)]
    handles = [handle(number) for number in range(n)]
    return WorkerPool(ray, handles, Resources(n, "cpu", 1, 1, 0), print, workers), streams


class TestAnswers:
    def test_they_come_in_the_order_of_the_clips_and_every_worker_has_some(self):
        pool, asked = fake_pool(3)[0], []

        def handle(worker):
            def remote(clips, settings, hashes):
                asked.append((worker, list(hashes)))
                return [clip.clip_id for clip in clips]

            return SimpleNamespace(answers=SimpleNamespace(remote=remote))

        pool.handles = [handle(number) for number in range(3)]
        clips = [replace(CLIP, clip_id=str(i), path=f"{i}.wav") for i in range(100)]
        pool.hashes = {clip.path: "hash" for clip in clips}
        assert list(pool.answers(clips, None)) == [clip.clip_id for clip in clips]
        assert {worker for worker, _ in asked} == {0, 1, 2}
        assert sorted(path for _, paths in asked for path in paths) == sorted(pool.hashes)
        assert max(len(paths) for _, paths in asked) == ANSWERS_AT_ONCE

    def test_a_worker_that_dies_for_good_is_one_line(self):
        pool, _ = fake_pool(1)
        pool.handles = [SimpleNamespace(answers=SimpleNamespace(remote=lambda *_: FakeDeath("killed")))]
        pool.hashes = {CLIP.path: "hash"}
        with pytest.raises(UserError, match="died 2 times while answering to clips"):
            list(pool.answers([CLIP], None))


class TestRecords:
    PAIRS = make_pairs([(i, i + 1) for i in range(1000)])

    def test_they_come_in_the_order_of_the_pairs_and_few_chunks_are_begun(self):
        pool, streams = fake_pool(3)
        ids = []
        for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: False):
            ids += [record["pair_id"] for record in records]
            waiting = [stream for stream in streams if stream.begun < len(stream.pairs)]
            assert len(waiting) <= CHUNKS_AHEAD * 3
        assert ids == [pair.pair_id for pair in self.PAIRS] and len(streams) > CHUNKS_AHEAD * 3

    def test_a_stop_cancels_what_is_begun_and_begins_nothing(self):
        pool, streams = fake_pool(2)
        given = []
        for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: len(given) == 2):
            given.append(records)
        assert len(given) == 2 and len(streams) == CHUNKS_AHEAD * 2 and all(stream.cancelled for stream in streams)

    def test_a_worker_that_dies_for_good_ends_the_run_after_the_pairs_before_with_the_names_of_the_others(self):
        pool, streams = fake_pool(2, deadly=1)
        given, first = [], len(cut(self.PAIRS, 2)[0])
        with pytest.raises(UserError, match=rf"died 2 times while computing these \d+ pairs: {first + 2}:") as caught:
            for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: False):
                given.append(records)
        assert len(given) == first + 2 and "(killed)" in str(caught.value)
        assert all(stream.cancelled for stream in streams[1:])
