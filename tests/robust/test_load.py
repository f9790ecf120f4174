"""Many runs in one process, and many pairs in one run, take no more of the machine than few."""

import gc
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from interventions import load_intervention, load_subject, run_table
from pairs import Clip, Pair, build_pairs
from tests.engine.decoders import make_clip, make_llm
from tests.small import small_model
from voicepatch.audio.cache import DecodedSound
from voicepatch.engine import clips as store_module
from voicepatch.engine import sounds as sounds_module
from voicepatch.engine.asked import Asked
from voicepatch.engine.clips import ClipStore
from voicepatch.engine.engine import Engine
from voicepatch.engine.subject import Subject
from voicepatch.models.families import family_of
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import run_experiment
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.store.directory import RunDir
from voicepatch.store.lock import only_user
from voicepatch.types.settings import Settings
from voicepatch.types.task import default_task

N_RUNS = 10
WARM = 2  # runs after which every cache has been filled
NOISE = 25  # objects, as of a thread that is about to end; a clip or a pair left behind by each run would be more


@pytest.fixture(autouse=True)
def only_what_is_new():
    """Set aside the hundreds of thousands of objects that the libraries made, so that counting takes no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def alive(store=None):
    """What a process may lose track of: tensors, their bytes, objects, open files and sockets, threads.

    The frames of clips, which a store keeps for the next experiment as far as its limit allows, are left out.
    """
    gc.collect()
    kept = {id(frames) for frames in store.sounds._frames.values()} if store else set()
    objects = [thing for thing in gc.get_objects() if id(thing) not in kept]
    tensors = [thing for thing in objects if issubclass(type(thing), torch.Tensor)]
    return {
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "objects": len(objects),
        "files": len(os.listdir("/dev/fd")) if Path("/dev/fd").is_dir() else len(psutil.Process().open_files()),
        "threads": threading.active_count(),
    }


def alive_after_a_run(store=None):
    """`alive`, when the thread that reads ahead has ended: it is told to, and not waited for."""
    until = time.monotonic() + 3
    for thread in threading.enumerate():
        if thread.name.startswith("sound"):
            thread.join(max(0, until - time.monotonic()))
    return alive(store)


def assert_nothing_has_grown(before, after):
    for what in ("tensors", "bytes", "files", "threads"):
        assert after[what] <= before[what], what
    assert after["objects"] <= before["objects"] + NOISE


# --- many runs in one process


@pytest.fixture(scope="module")
def sample(demo_data):
    return build_pairs(demo_data.clips, "prosody", max_pairs=2)


@pytest.fixture(scope="module")
def loaded():
    return load_subject(small_model(), device="cpu")


def test_ten_tables_on_one_model_leave_nothing_behind(loaded, sample):
    counts = []
    for _ in range(N_RUNS):
        run_table(loaded, load_intervention("patch"), sample.pairs)
        counts.append(alive_after_a_run())
    assert_nothing_has_grown(counts[WARM], counts[-1])


def test_a_model_that_is_loaded_again_takes_the_place_of_the_old_one(sample):
    counts = []
    for _ in range(N_RUNS):
        subject = load_subject(small_model(), device="cpu")
        run_table(subject, load_intervention("patch"), sample.pairs, layers=[0, 3])
        counts.append(alive_after_a_run())
    assert_nothing_has_grown(counts[WARM], counts[-1])


def test_ten_runs_with_their_checks_and_files_leave_nothing_behind(loaded, demo_data, sample, tmp_path):
    counts = []
    for number in range(N_RUNS):
        run = RunDir(tmp_path / str(number))
        with only_user(run.path):
            run_experiment(
                LocalExecutor(loaded),
                demo_data,
                run,
                load_intervention("patch"),
                sample,
                Settings("prosody", layers=(0,)),
            )
        counts.append(alive_after_a_run())
    assert_nothing_has_grown(counts[WARM], counts[-1])


# --- many pairs in one run

N_PAIRS = 300
N_CLIPS = 60
N_FRAMES = 12
ROOM = 5  # clips that the store may hold between two pairs


class StandIn:
    """Model and input of one decoder layer that hears random frames: a pair costs it a few milliseconds."""

    max_samples = None
    prompt = SimpleNamespace(after=[])
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: [1])

    def __init__(self):
        self.llm = make_llm(n_layers=1)

    def features(self, waveform):
        return torch.from_numpy(waveform)

    def encode(self, waveform):
        return waveform.expand(N_FRAMES, 1).clone()


def sound_of(number):
    return DecodedSound(np.array([number], np.float32), 1, False, "", ())


@pytest.fixture
def subject(monkeypatch):
    # The name of a clip's file is a number, and that number is its sound.
    monkeypatch.setattr(sounds_module, "read_sound", lambda path, _: sound_of(float(path.name)))
    monkeypatch.setattr(store_module, "join", lambda model, frames: make_clip(len(frames), seed=int(frames[0])))
    model = StandIn()
    lm, labels = Engine(model.llm), SimpleNamespace(token_ids=[1, 2, 3, 4, 5])
    asked = (Asked("", model, labels),)
    return Subject("", "", family_of({"llm_config": {}}), default_task(), asked, lm, ClipStore(asked, lm))


@pytest.fixture(scope="module")
def many():
    """Each clip is in ten pairs, which lie far apart: without a bound, all would be held at once."""
    clips = [Clip(str(i), Path(str(i)), f"text {i}", "Text.", "happy", "sad") for i in range(N_CLIPS)]
    assert [clip.path.name for clip in clips]  # a path keeps what it was taken apart into
    couples = [(clips[i % N_CLIPS], clips[(i + 1 + i // N_CLIPS) % N_CLIPS]) for i in range(N_PAIRS)]
    return [Pair(f"{a.clip_id}->{b.clip_id}", "semantic", a, b, "happy") for a, b in couples]


def bytes_of_a_clip(subject, clip):
    with torch.inference_mode():
        subject.engine.record(subject.clips.get(clip))
    return subject.clips.nbytes


def test_a_run_of_many_pairs_holds_no_more_at_its_end_than_at_its_beginning(subject, many):
    store, patch = subject.clips, load_intervention("patch")
    list(run_pairs(subject, patch, many[:3]))
    before = alive_after_a_run(store)
    one = bytes_of_a_clip(subject, many[0].a)
    store.limit = ROOM * one
    counts = []
    for number, _ in enumerate(run_pairs(subject, patch, many)):
        assert store.nbytes <= store.limit + 2 * one, "the limit and the pair at hand"
        assert set(store._inputs) <= {clip.clip_id for pair in many[number:] for clip in (pair.a, pair.b)}
        if number % 30 == 29:
            counts.append(alive(store))
    first, last = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    for what, some in {"tensors": sounds_module.N_PREFETCHED, "objects": 2 * NOISE, "files": 0, "threads": 0}.items():
        assert max(count[what] for count in last) <= max(count[what] for count in first) + some, what
    counts.clear()
    assert_nothing_has_grown(before, alive_after_a_run(store))


def test_without_a_bound_the_store_holds_what_later_pairs_need_and_at_the_end_frames_alone(subject, many):
    held = []
    for _ in run_pairs(subject, load_intervention("patch"), many[: 2 * N_CLIPS]):
        held.append(len(subject.clips._inputs))
    assert max(held) == N_CLIPS and held[-1] <= 2 and not subject.clips._inputs
    frames = subject.clips.sounds._frames.values()
    assert len(frames) == N_CLIPS and subject.clips.nbytes == sum(each.nbytes for each in frames)
