"""Any sound becomes the same 16 kHz, and the decoder reads it in one known span of one known prompt."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tests.models.conftest import read_turn
from voicepatch.audio.decode import read_audio
from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.opens2s_io import AUDIO, OpenS2SLM, expand_ids, find_audio_span
from voicepatch.models.speech_lm import join
from voicepatch.types.task import default_task

QUESTION = default_task().question

# --- sound files


def tone(hertz, rate, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def strongest(samples, rate=16_000):
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


def level(samples):
    """Amplitude of a sine, away from the file's ends."""
    return np.sqrt(2 * np.mean(samples[2000:-2000].astype(np.float64) ** 2))


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 8_000, "PCM_16"),
        ("a.wav", 16_000, "PCM_16"),
        ("a.wav", 44_100, "PCM_24"),
        ("a.wav", 48_000, "FLOAT"),
        ("a.wav", 22_050, "PCM_U8"),
        ("a.flac", 96_000, "PCM_24"),
        ("a.ogg", 44_100, "VORBIS"),
        ("a.opus", 48_000, "OPUS"),
        ("a.mp3", 44_100, "MPEG_LAYER_III"),
    ],
)
def test_a_tone_keeps_its_frequency_and_level(tmp_path, name, rate, subtype):
    soundfile.write(tmp_path / name, tone(1000, rate), rate, subtype=subtype, format={"opus": "OGG"}.get(name[2:]))
    heard = read_audio(tmp_path / name)
    assert heard.dtype == np.float32 and heard.ndim == 1
    assert abs(strongest(heard) - 1000) < 2
    assert level(heard) == pytest.approx(0.5, rel=0.03)
    assert len(heard) == pytest.approx(16_000, rel=0.1 if name == "a.mp3" else 1e-3)


def test_a_tone_above_the_new_limit_is_filtered_not_folded(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(11_000, 44_100), 44_100)
    assert level(read_audio(tmp_path / "a.wav")) < 1e-3


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize(("right", "expected"), [(0.2, 0.3), (-0.4, 0.0), (0.0, 0.2)])
def test_channels_are_averaged(tmp_path, rate, right, expected):
    channels = np.stack([tone(440, rate, level=0.4), tone(440, rate, level=right)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, rate, subtype="FLOAT")
    assert level(read_audio(tmp_path / "a.wav")) == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def spoiled(tmp_path):
    """A function that writes a file which is no clip, by what is wrong with it."""

    def write(fault):
        path = tmp_path / "clip 1.wav"
        samples = tone(440, 16_000)
        if fault in ("not finite", "infinite"):
            samples[5000] = np.nan if fault == "not finite" else np.inf
        if fault != "missing":
            soundfile.write(path, samples[: {"silent": 0, "short": 399}.get(fault)], 16_000, subtype="FLOAT")
        if fault == "truncated":
            path.write_bytes(path.read_bytes()[:30])
        if fault in ("empty", "text"):
            path.write_text("" if fault == "empty" else "clip_id,path\n" * 50)
        return path

    return write


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("missing", "not a readable sound file"),
        ("empty", "not a readable sound file"),
        ("text", "not a readable sound file"),
        ("truncated", "not a readable sound file"),
        ("silent", "holds no sound"),
        ("short", "shorter than 25 ms"),
        ("not finite", "not finite"),
        ("infinite", "not finite"),
    ],
)
def test_what_is_no_clip_is_refused_by_name(spoiled, refused, fault, word):
    path = spoiled(fault)
    with refused(path, word):
        read_audio(path)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_shortest_clip_read_has_a_position(tmp_path, model, io, rate):
    soundfile.write(tmp_path / "a.wav", tone(440, rate, seconds=0.026), rate)
    assert len(model.encode(*log_mel(io.extractor, read_audio(tmp_path / "a.wav")))) == 1


# --- from samples to mel


@pytest.mark.parametrize(
    ("n_samples", "n_frames", "n_windows"),
    [(400, 3, 1), (16_000, 100, 1), (16_001, 101, 1), (480_000, 3000, 1), (480_001, 3001, 2), (960_000, 6000, 2)],
)
def test_every_160_samples_begun_are_a_frame_and_mels_are_whole_windows(io, noise, n_samples, n_frames, n_windows):
    mel, frames = log_mel(io.extractor, noise(n_samples))
    assert frames == n_frames
    assert mel.shape == (128, 3000 * n_windows) and mel.dtype == torch.float32


def test_a_sound_after_the_first_window_is_in_the_mel_where_it_was(io):
    waveform = np.zeros(40 * 16_000, np.float32)
    waveform[33 * 16_000 : 35 * 16_000] = tone(1000, 16_000, seconds=2)
    mel, _ = log_mel(io.extractor, waveform)
    loud = (mel.amax(dim=0) > mel.max() - 0.1).nonzero().flatten()
    assert abs(loud[0] - 3300) <= 2 and abs(loud[-1] - 3500) <= 2
    early, _ = log_mel(io.extractor, waveform[33 * 16_000 : 35 * 16_000])
    assert mel[:, 3400].argmax() == early[:, 100].argmax()


# --- the prompt


TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|im_audio_start|><|im_audio|><|im_audio_end|>What is the emotion of this audio? "
    "Answer with exactly one word: neutral, happy, sad, angry, or surprised.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n<|im_tts_start|>"
)


def test_the_turn_is_the_published_one_to_the_letter(io):
    assert io.prompt.text == TURN


def test_without_a_chat_template_the_turn_is_the_published_one_too(tokenizer_folder, io):
    assert read_turn(tokenizer_folder(chat_template=None)) == (io.tokens, io.prompt)


def test_the_ids_say_the_turn_and_nothing_more(io):
    before, after = io.prompt.before, io.prompt.after
    assert io.tokenizer.decode(before) + AUDIO + io.tokenizer.decode(after) == io.prompt.text
    assert io.tokenizer.convert_ids_to_tokens([before[-1], after[0], after[-1]]) == [
        "<|im_audio_start|>",
        "<|im_audio_end|>",
        "<|im_tts_start|>",
    ]


def test_the_placeholder_is_never_a_token(io):
    assert AUDIO not in io.tokenizer.get_vocab()
    text = io.tokenizer.decode([*io.prompt.before, *io.prompt.after])
    assert AUDIO not in text and text.count("audio") == 3  # the start token, the end token, the prompt's own word


def test_another_question_takes_the_place_of_the_first_and_nothing_else_changes(io):
    _, other = read_turn(io.folder, "Which emotion?")
    assert other.text == io.prompt.text.replace(QUESTION, "Which emotion?")
    assert io.tokenizer.decode(other.after) == other.text.split(AUDIO)[1]


@pytest.mark.parametrize("token", ["<|im_audio_start|>", "<|im_audio_end|>", "<|im_tts_start|>"])
def test_a_tokenizer_without_a_token_of_opens2s_is_refused(tokenizer_folder, refused, token):
    every = ("<|im_audio_start|>", "<|im_audio_end|>", "<|im_tts_start|>")
    folder = tokenizer_folder(special=[other for other in every if other != token])
    with refused(f"lacks {token};"):
        read_turn(folder)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_folder_without_a_readable_tokenizer_or_extractor_is_named(tokenizer_folder, refused, content):
    folder = tokenizer_folder()
    for path in (folder / "tokenizer.json", folder / "audio" / "preprocessor_config.json"):
        path.unlink() if content is None else path.write_text(content)
    with refused(folder, "tokenizer"):
        read_turn(folder)
    with refused(folder / "audio" / "preprocessor_config.json"):
        read_extractor(folder / "audio", 128)


def test_reading_a_tokenizer_warns_of_nothing(tokenizer_folder, capfd):
    """transformers warns of a Mistral regex for a vocabulary of Qwen's size, though the ids are right."""
    read_turn(tokenizer_folder(n_unused=100_000))
    assert capfd.readouterr().err == ""


# --- expanded ids and the span in them

START, END = 7, 8


def test_the_placeholder_grows_to_as_many_positions_as_there_are_frames():
    assert expand_ids([5, START, -200, END, 6], 3).tolist() == [5, START, -200, -200, -200, END, 6]
    assert expand_ids(torch.tensor([[1, -200]]), 1).tolist() == [1, -200]


@pytest.mark.parametrize("kind", [list, torch.tensor, lambda ids: torch.tensor([ids])])
def test_the_one_span_is_found(kind):
    ids = kind([5, START, -200, -200, -200, END, 6])
    assert find_audio_span(ids).tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("ids", "n_spans"),
    [
        ([], 0),
        ([5, START, END, 6], 0),
        ([START, -200, END, START, -200, -200, END], 2),
        ([-200, 5, -200, 5, -200], 3),
    ],
)
def test_no_span_or_several_are_refused(refused, ids, n_spans):
    with refused(f"{n_spans} audio spans", "exactly one"):
        find_audio_span(ids)


# --- ids and frames joined


@pytest.fixture
def frames():
    return torch.randn(6, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small(model, io, monkeypatch):
    """A function that gives the golden model another prompt, of its own 128 ids."""

    def with_prompt(before, after):
        speech = OpenS2SLM(model, io.extractor)
        speech.prompt = replace(io.prompt, before=before, after=after)
        return speech

    return with_prompt


def test_frames_stand_in_the_span_and_the_tables_rows_everywhere_else(model, small, frames):
    table = model.llm_model.get_input_embeddings().weight
    before = table.clone()
    clip = join(small([5, 6, START], [END, 9]), frames)
    assert clip.input_ids.tolist() == [5, 6, START, *[-200] * 6, END, 9]
    assert clip.audio_indices.tolist() == [3, 4, 5, 6, 7, 8]
    assert clip.inputs_embeds.shape == (1, 11, 48)
    assert torch.equal(clip.inputs_embeds[0, 3:9], frames)
    assert torch.equal(clip.inputs_embeds[0, [0, 1, 2, 9, 10]], table[[5, 6, START, END, 9]])
    assert torch.equal(table, before)


def test_a_clip_knows_its_span_and_its_readout(small, frames):
    clip = join(small([5, START], [END, 9, 9]), frames)
    assert (clip.span, clip.n_audio, clip.readout_pos) == (slice(2, 8), 6, 10)
    assert torch.equal(clip.inputs_embeds[0, clip.span], frames)
    assert clip.readout_pos == clip.inputs_embeds.shape[1] - 1


def test_frames_take_the_dtype_of_the_table(model, small, frames):
    embeds = join(small([5], [6]), frames.to(torch.float64)).inputs_embeds
    table = model.llm_model.get_input_embeddings().weight
    assert embeds.dtype == torch.float32
    assert torch.equal(embeds[0], torch.cat([table[[5]], frames, table[[6]]]))


def test_a_clip_is_its_frames_in_the_prompt(model, io, noise, monkeypatch):
    """With a table large enough for the tokenizer; the rows beyond the model's own are made up."""
    table = torch.nn.Embedding.from_pretrained(torch.arange(400.0)[:, None].expand(400, 48).contiguous())
    monkeypatch.setitem(model.llm_model.model._modules, "embed_tokens", table)  # setattr would lose the model's own
    speech = OpenS2SLM(model, io.extractor)
    speech.prompt = io.prompt
    clip = join(speech, speech.encode(speech.features(noise(32_000))))
    assert clip.n_audio == speech.n_audio(32_000) == 13
    assert torch.equal(clip.inputs_embeds[0, clip.span], model.encode(*log_mel(io.extractor, noise(32_000))))
    text = torch.ones(len(clip.input_ids), dtype=torch.bool)
    text[clip.span] = False
    assert clip.inputs_embeds[0, text, 0].tolist() == [*io.prompt.before, *io.prompt.after]


@pytest.mark.parametrize(("bins", "window"), [(80, 3000), (128, 100)])
def test_an_extractor_that_does_not_fit_the_encoder_is_refused(io, refused, bins, window):
    read_extractor(io.folder / "audio", 128, 3000)
    with refused("preprocessor_config.json", "one checkpoint"):
        read_extractor(io.folder / "audio", bins, window)
