"""A checkpoint of each family, written once, and loaded as a run loads it."""

import shutil
from fnmatch import fnmatch
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.models.families.builders import BUILDERS
from voicepatch.engine.pair_input import align
from voicepatch.models.speech_lm import join, load_speech_lm


def sound(seconds, seed):
    """A tone with harmonics in noise, another one for each seed."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    tone = sum(np.sin(2 * np.pi * (120 + 60 * seed) * k * time) / k for k in range(1, 6))
    return (0.1 * tone + np.random.default_rng(seed).normal(0, 0.03, len(time))).astype(np.float32)


def load(folder, dtype="float32"):
    return load_speech_lm(folder, "cpu", dtype)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A function that gives a family's checkpoint, its model as loaded, and a pair of clips."""
    cache = {}

    def make(name):
        if name not in cache:
            with torch.inference_mode(False):  # whichever test asks first: gradients need ordinary weights
                tiny = BUILDERS[name](tmp_path_factory.mktemp("checkpoint"))
                speech = load(tiny.folder)
            sounds = sound(1.3, seed=1), sound(0.9, seed=2)
            with torch.inference_mode():
                clips = [join(speech, speech.encode(speech.features(waveform))) for waveform in sounds]
            cache[name] = SimpleNamespace(tiny=tiny, speech=speech, sounds=sounds, pair=align(*clips))
        return cache[name]

    return make


@pytest.fixture(scope="session", params=list(BUILDERS))
def case(request, made):
    """Each family in turn."""
    return made(request.param)


@pytest.fixture
def copy(made, tmp_path):
    """A function that gives a copy of a family's checkpoint, to be spoiled."""
    return lambda name: shutil.copytree(made(name).tiny.folder, tmp_path / "copy")


@pytest.fixture
def hub(monkeypatch):
    """A function that puts a folder on the hub; gives the patterns of what is fetched, and the revision."""

    def put(folder, kept):
        asked = []

        def snapshot_download(hub_id, allow_patterns, ignore_patterns=(), revision=None):
            asked.append((allow_patterns, revision))
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                name = str(path.relative_to(folder))
                if any(fnmatch(name, pattern) for pattern in allow_patterns):
                    (kept / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, kept / name)
            return str(kept)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return asked

    return put
