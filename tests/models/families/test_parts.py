"""What no class of transformers can be asked for where the tests run: Granite's mel, Mistral's tokenizer; and a run."""

import json

import numpy as np
import pytest
import soundfile
import torch
from transformers.audio_utils import mel_filter_bank

from tests.commands import NO_FIGURES, call
from tests.models.families.builders import write_tekken
from tests.models.families.conftest import sound
from tests.models.families.tiny import N_LAYERS
from voicepatch.engine.positions import token_texts
from voicepatch.models.family import declared_families
from voicepatch.models.granite_speech import log_mel_pairs
from voicepatch.models.mel import read_extractor
from voicepatch.models.tekken import Tekken
from voicepatch.types.task import default_task

QUESTION = default_task().question


@pytest.mark.parametrize("seconds", [0.025, 0.5, 1.01])
def test_granites_mel_is_the_documented_sum_of_a_spectrogram(seconds):
    """By numpy alone: frames of 400 in the middle of 512, reflected ends, power, HTK filters, 8 decades of log."""
    waveform = sound(seconds, seed=5)
    padded = np.pad(waveform.astype(np.float64), 256, mode="reflect")
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    n_frames = len(waveform) // 160 + 1
    frames = np.stack([padded[160 * i : 160 * i + 512] * window for i in range(n_frames)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = power @ mel_filter_bank(257, 80, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    log = np.log10(np.maximum(mel, 1e-10))
    log = np.maximum(log, log.max() - 8) / 4 + 1
    expected = log[: n_frames // 2 * 2].reshape(-1, 160)
    found = log_mel_pairs(torch.from_numpy(waveform)).numpy()
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4


class TestTekken:
    @pytest.fixture
    def path(self, tmp_path):
        write_tekken(tmp_path)
        return tmp_path / "tekken.json"

    def test_the_pair_of_lowest_rank_is_joined_first_within_a_piece(self, path):
        tokenizer = Tekken(path)
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode("bang sus")) == ["b", "ang", " ", "su", "s"]
        assert tokenizer.encode("a") == [40 + ord("a")]
        assert bytes(i - 40 for i in tokenizer.encode("é✨")).decode() == "é✨"

    def test_special_tokens_have_the_first_ids_and_are_never_made_of_text(self, path):
        tokenizer = Tekken(path)
        assert [tokenizer.special(name) for name in ("<s>", "[INST]", "[BEGIN_AUDIO]", "[/INST]")] == [1, 3, 25, 4]
        assert min(tokenizer.encode("[INST]<s>")) >= 40
        assert tokenizer.convert_ids_to_tokens([1, 24, -200, 10**6]) == ["<s>", "[AUDIO]", "<-200>", "<1000000>"]

    @pytest.mark.parametrize("part", ["config", "vocab", "special_tokens"])
    def test_a_file_without_one_of_its_parts_is_refused(self, path, refused, part):
        content = json.loads(path.read_text())
        for spoiled in ({}, [], [{}], None, 5):
            path.write_text(json.dumps(content | {part: spoiled}))
            if part == "special_tokens" and spoiled in ({}, []):
                continue  # without any, the first that is asked for is named
            with refused("tekken.json", "again"):
                Tekken(path)

    def test_a_token_that_the_turn_needs_is_named(self, path, refused):
        path.write_text(path.read_text().replace("[/INST]", "[/OTHER]"))
        with refused("lacks [/INST]"):
            Tekken(path).special("[/INST]")


# --- runs


@pytest.fixture
def clips(tmp_path):
    """Two texts, each happy and sad: two prosody pairs, one of them with a clip of more than 30 s."""
    rows = ["clip_id,path,text_id,text,semantic_label,prosody_label"]
    for number, (text, label) in enumerate([("a", "happy"), ("a", "sad"), ("b", "happy"), ("b", "sad")]):
        soundfile.write(tmp_path / f"{number}.wav", sound(31 if number == 3 else 0.6 + 0.2 * number, number), 16_000)
        rows.append(f"c{number},{number}.wav,{text},Text {text}.,neutral,{label}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "clips.csv"


@pytest.mark.parametrize("name", ["Voxtral", "Qwen2-Audio", "Music Flamingo", "Granite Speech plus", "Gemma 4 12B"])
def test_an_interrupted_run_goes_on_and_says_what_the_span_and_the_prompt_are(made, clips, tmp_path, name):
    speech, run = made(name).speech, tmp_path / "run"
    options = (
        "patch",
        "--kind",
        "prosody",
        "--model",
        made(name).tiny.folder,
        "--data",
        clips,
        "--device",
        "cpu",
        NO_FIGURES,
    )
    output = call(*options, "--out", run, NO_FIGURES)
    assert ("1 of 4 clips are longer than the 30 s" in output) == (name == "Qwen2-Audio")
    records, config = run / "patching_records_prosody.jsonl", run / "patching_config.json"
    whole, settings = records.read_text(), json.loads(config.read_text())
    assert len(whole.splitlines()) == 2 * N_LAYERS
    if name == "Voxtral":
        assert {json.loads(line)["n_patched"] for line in whole.splitlines()} == {375}

    records.write_text("".join(whole.splitlines(keepends=True)[:N_LAYERS]))
    settings["experiments"]["prosody"]["finished"] = False
    config.write_text(json.dumps(settings))
    call(*options, "--out", run, NO_FIGURES)
    assert records.read_text() == whole

    spoken = {"system": speech.prompt.system, "user": QUESTION, "text": speech.prompt.text}
    spoken["tokens_after"] = token_texts(speech.tokenizer, speech.prompt.after)
    assert settings["prompt"] == spoken | ({"span": speech.prompt.span} if speech.prompt.span else {})
    spans = json.loads((run / "sanity_check_audio_span.json").read_text())
    assert spans["passed"] and ("directly beside it" in spans["held_against"]) == any(speech.prompt.borders)
    assert ("only one side" in spans["held_against"]) == ("span" in spans) == (name == "Voxtral")


def test_digital_silence_is_no_text(made, clips, tmp_path):
    """Gemma 4's frames of silence are zeros, and so is the embedding of its padding in random weights."""
    for number in range(4):
        silent = np.concatenate([np.zeros(4000, np.float32), sound(0.5, number)])
        soundfile.write(tmp_path / f"{number}.wav", silent, 16_000)
    options = ("--model", made("Gemma 4 12B").tiny.folder, "--data", clips, "--device", "cpu", "--random-weights")
    assert "all checks passed" in call("check", *options, "--out", tmp_path / "run").lower()


def test_the_families_are_listed_with_their_licences():
    output = call("models")
    for family in declared_families():
        assert all(word in output for word in (family.name, family.licence, *family.hub_ids))


def test_what_a_folder_does_not_say_of_its_extractor_is_what_its_family_has(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
    assert read_extractor(tmp_path, 128).n_samples == 30 * 16_000
    assert read_extractor(tmp_path, 128, chunk_length=300).n_samples == 300 * 16_000
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128, "chunk_length": 60}))
    assert read_extractor(tmp_path, 128, chunk_length=300).n_samples == 60 * 16_000
