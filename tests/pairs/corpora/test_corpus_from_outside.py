"""A corpus from outside: declared in a file of the user's."""

import re

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from cli import cli
from pairs import load_dataset
from pairs.corpora.corpus import Recording, corpora, corpus
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import ROOT
from voicepatch.registry.catalogue import add_plugin, reset_plugins


@pytest.fixture
def plugin(tmp_path):
    """The file of the documentation."""
    text = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    path = tmp_path / "toy_corpus.py"
    path.write_text(re.search(r"```python\n(# toy_corpus.py\n.*?)```", text, re.S)[1], encoding="utf-8")
    yield path
    reset_plugins()


@pytest.fixture
def clips(tmp_path):
    """Two texts by two speakers in two emotions, one file of an emotion without a label, one of an unknown text."""
    folder = tmp_path / "clips"
    folder.mkdir()
    names = [f"{who}_{text}_{emotion}" for who in ("anna", "ben") for text in "12" for emotion in "hs"]
    noise = np.random.default_rng(0)
    for name in [*names, "anna_1_b", "ben_3_h"]:
        soundfile.write(folder / f"{name}.wav", noise.normal(0, 0.1, 6000), 16000)
    return folder


def test_a_plugins_corpus_gives_pairs(plugin, clips, tmp_path):
    words = ["pairs", "--kind", "prosody", "--data", str(clips), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*words, "--plugin", str(plugin)])
    assert result.exit_code == 0, result.output
    assert "data: Toy: 8 of 10 wav files are clips; speakers: 2; texts: 2" in result.output
    assert "left out: 1 of an unknown text; 1 bored" in result.output
    assert "8 clips, 4 prosody pairs possible, 4 drawn" in result.output

    listed = CliRunner().invoke(cli, ["corpora", "--plugin", str(plugin)]).output
    assert "Toy: Two texts by two speakers" in listed and "RAVDESS" in listed

    reset_plugins()
    assert CliRunner().invoke(cli, words).exit_code == 1


def test_the_clips_have_what_the_function_says_of_them(plugin, clips):
    add_plugin(plugin)
    clip = next(clip for clip in load_dataset(clips).clips if clip.clip_id == "ben_2_s")
    assert (clip.prosody_label, clip.text_id, clip.text, clip.speaker) == ("sad", "2", "The door is open", "ben")


def refused(call, *words, status):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.status == status
    assert not [word for word in words if word not in str(error.value)], str(error.value)


def recording(found):
    return Recording(found[0], "happy", "1", "anna")


def test_a_declaration_that_cannot_be_used_is_refused_by_its_line():
    me = "test_corpus_from_outside.py"
    refused(lambda: corpus(name="RAVDESS", pattern="x")(recording), me, "ravdess.py", status=BAD_USAGE)
    refused(lambda: corpus(name="New", pattern="(")(recording), me, "pattern=", status=BAD_USAGE)
    refused(lambda: corpus(name="New", pattern="x", licens="")(recording), me, "licens=", status=BAD_USAGE)


def test_names_of_two_corpora_are_refused_by_both_files(plugin, clips, monkeypatch):
    add_plugin(plugin)
    monkeypatch.setattr(corpora, "_found", dict(corpora._found))
    corpus(name="Other", pattern=".*")(recording)
    refused(lambda: load_dataset(clips), "Toy", "toy_corpus.py", "Other", "test_corpus_from_outside.py", status=1)
