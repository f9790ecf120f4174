"""Records come in the order of the pairs, whoever computes them, in whatever order, and whoever dies over it."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.failures import PairFailed
from errors import UserError
from pairs import Clip, Pair
from workers.chunks import RECORDING, SIZES, _cut, _needed_on_both_sides, cut, n_clips
from workers.member import Lost
from workers.order import OPEN, in_order
from workers.worker import Part

CLIP = Clip("c", "c.wav", "t", "text", "happy", "sad")


def make_pairs(numbers):
    """A pair for each (a, b), of clips that are called so."""
    clips = {n: replace(CLIP, clip_id=str(n)) for pair in numbers for n in pair}
    return [Pair(f"{i}:{a}-{b}", "semantic", clips[a], clips[b], "sad") for i, (a, b) in enumerate(numbers)]


class Reference:
    def __init__(self, pairs, dead):
        self.pairs, self.dead = pairs, dead


class FakeMember:
    """A worker that does a few pairs at a call, and dies at its call number `dies_at` or over a pair in `deadly`."""

    def __init__(self, number, draw, dies_at=None, deadly=(), failing=(), wrong=()):
        self.lost, self.where, self.about, self.calls = False, f"host, process {number}", None, 0
        self._draw, self._dies_at, self._deadly, self._failing, self._wrong = draw, dies_at, deadly, failing, wrong

    def call(self, method, pairs=None):
        self._left = pairs if pairs is not None else self._left
        self.calls += 1
        n = self._draw.randint(1, 3)
        now, self._left = self._left[:n], self._left[n:]
        return Reference(now, self.calls == self._dies_at)

    def answer(self, reference):
        if reference.dead or any(pair.pair_id in self._deadly for pair in reference.pairs):
            self.lost = True
            raise Lost("killed")
        part = Part(said=["a line"])
        for pair in reference.pairs:
            if pair.pair_id in self._wrong:
                part.error = UserError("the experiment is wrong")
                break
            failed = pair.pair_id in self._failing
            part.rows.append(([] if failed else [{"pair_id": pair.pair_id}], PairFailed("no") if failed else None))
        return part

    def named(self, error):
        return error


class FakeCrew:
    def __init__(self, members, draw):
        self.members, self.draw, self.warnings, self.most = members, draw, [], 0

    def alive(self):
        left = [member for member in self.members if not member.lost]
        if not left:
            raise UserError("no worker is left")
        return left

    def ready(self, references):
        self.most = max(self.most, len(references))
        return self.draw.sample(references, self.draw.randint(0, len(references)))

    def warn(self, member, error, what=""):
        self.warnings.append(f"{member.where}{what}")


def ran(crew, pairs, asked=lambda: False):
    """(ids of the pairs with records, ids of those that failed, the error in the end)."""
    given, failed = [], []
    try:
        for records in in_order(crew, pairs, lambda line: None, lambda pair, _: failed.append(pair.pair_id), asked):
            given += [record["pair_id"] for record in records]
    except UserError as error:
        return given, failed, str(error)
    return given, failed, None


NUMBERS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=300)


@given(numbers=NUMBERS, n=st.integers(1, 5), seed=st.integers(0, 1000), data=st.data())
def test_the_order_is_that_of_the_list_whoever_dies(numbers, n, seed, data):
    pairs, draw = make_pairs(numbers), random.Random(seed)
    failing = {pair.pair_id for pair in pairs if draw.random() < 0.1}
    deaths = data.draw(st.lists(st.integers(1, 5), max_size=n - 1))
    members = [FakeMember(i, draw, at, failing=failing) for i, at in enumerate([*deaths, *[None] * (n - len(deaths))])]
    given, failed, error = ran(FakeCrew(members, draw), pairs)
    ids = [pair.pair_id for pair in pairs]
    if error is None:
        assert given == [i for i in ids if i not in failing] and failed == [i for i in ids if i in failing]
    else:  # one chunk had the bad luck to be with two that died
        assert "workers died over the same" in error
        assert sorted(given + failed, key=ids.index) == ids[: len(given) + len(failed)]


@given(n=st.integers(2, 5), seed=st.integers(0, 1000))
def test_a_pair_that_kills_two_workers_ends_the_run_after_all_before_its_chunk(n, seed):
    pairs, draw = make_pairs([(i, i + 1) for i in range(100)]), random.Random(seed)
    deadly = pairs[60].pair_id
    crew = FakeCrew([FakeMember(i, draw, deadly={deadly}) for i in range(n)], draw)
    given, _, error = ran(crew, pairs)
    assert "2 workers died over the same" in error or "no worker is left" in error
    assert deadly in error or n == 2 and "no worker" in error
    assert given == [pair.pair_id for pair in pairs[: len(given)]] and 32 <= len(given) <= 60
    assert len(crew.warnings) >= 2 and "go to the others" in crew.warnings[0]


@given(n=st.integers(1, 4), seed=st.integers(0, 1000))
def test_an_error_of_the_experiment_comes_after_all_pairs_before_it(n, seed):
    pairs, draw = make_pairs([(i, i + 1) for i in range(100)]), random.Random(seed)
    members = [FakeMember(i, draw, wrong={pairs[60].pair_id}) for i in range(n)]
    given, _, error = ran(FakeCrew(members, draw), pairs)
    assert error == "the experiment is wrong" and given == [pair.pair_id for pair in pairs[:60]]


def test_with_nobody_left_the_run_ends_and_says_so():
    pairs, draw = make_pairs([(i, i + 1) for i in range(50)]), random.Random(0)
    given, _, error = ran(FakeCrew([FakeMember(0, draw, dies_at=4)], draw), pairs)
    assert error == "no worker is left" and given == [pair.pair_id for pair in pairs[: len(given)]] and given


def test_asked_to_stop_it_gives_what_is_in_flight_and_begins_nothing():
    pairs, draw = make_pairs([(i, i + 1) for i in range(200)]), random.Random(0)
    members, came = [FakeMember(i, draw) for i in range(2)], []
    crew = FakeCrew(members, draw)
    calls = []

    def asked():
        if not came and sum(member.calls for member in members) >= 6:
            came.append(1)
            calls.append(sum(member.calls for member in members))
        return bool(came)

    given, _, error = ran(crew, pairs, asked)
    assert error is None and given == [pair.pair_id for pair in pairs[: len(given)]] and 0 < len(given) < 60
    assert sum(member.calls for member in members) == calls[0]


def test_what_waits_for_an_earlier_chunk_is_bounded():
    pairs, draw = make_pairs([(i, i + 1) for i in range(5000)]), random.Random(0)
    slow, fast = FakeMember(0, draw), FakeMember(1, draw)
    crew = FakeCrew([slow, fast], draw)
    crew.ready = lambda references: [r for r in references if r.pairs[0].pair_id != pairs[0].pair_id]
    rows = in_order(crew, pairs, lambda line: None, None, lambda: len(seen) > 1000 or bool(seen.append(1)))
    seen = []
    crew_ready, looks = crew.ready, []

    def ready(references):  # until only the slow one is at work
        found = crew_ready(references)
        if not found:
            looks.append(1)
            crew.ready = lambda references: references
        return found

    crew.ready = ready
    next(rows)
    chunks = cut(pairs, 2)
    done = sum(len(chunk) for chunk in chunks[1 : OPEN * 2])
    assert looks and fast.calls <= done  # it went no further than the chunks that may wait


class TestChunks:
    @given(numbers=NUMBERS, n=st.integers(1, 40))
    def test_they_are_the_list_in_order_and_none_is_too_long(self, numbers, n):
        pairs = make_pairs(numbers)
        chunks = cut(pairs, n)
        assert [pair for chunk in chunks for pair in chunk] == pairs
        assert all(0 < len(chunk) <= SIZES[-1] * 1.5 for chunk in chunks)

    def test_they_are_cut_where_no_clip_is_needed_on_both_sides(self):
        groups = [7, 8, 7, 7, 8, 8, 7, 8, 7]
        numbers = [(group, 100 + 100 * group + i) for group, n in enumerate(groups) for i in range(n)]
        pairs = make_pairs(numbers)
        chunks = _cut(pairs, 8, _needed_on_both_sides(pairs))
        assert [len(chunk) for chunk in chunks] == groups
        assert sum(map(n_clips, chunks)) == n_clips(pairs)

    def test_every_worker_has_some_of_a_few_pairs(self):
        assert len(cut(make_pairs([(i, 100 + i) for i in range(16)]), 8)) >= 4

    @pytest.mark.parametrize("kind", ["prosody", "semantic"])
    @pytest.mark.parametrize("n", [2, 8])
    def test_the_demos_pairs_cost_few_recordings_more(self, demo_data, kind, n):
        from pairs import build_pairs

        pairs = build_pairs(demo_data.clips, kind, 100).pairs
        chunks = cut(pairs, n)
        assert len(chunks) >= n
        extra = sum(map(n_clips, chunks)) - n_clips(pairs)
        # Never so many that the workers together take longer than one alone.
        longest = max(len(chunk) + RECORDING * n_clips(chunk) for chunk in chunks)
        assert longest < len(pairs) + RECORDING * n_clips(pairs)
        assert extra <= (3 if kind == "prosody" else 25 * n)
