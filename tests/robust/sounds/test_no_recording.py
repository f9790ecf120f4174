"""A file that can be decoded and is no recording, and silence."""

import os
import socket

import numpy as np
import pytest
import soundfile

from tests.robust.sounds.made import message, noise
from voicepatch.audio import decode as module
from voicepatch.audio.decode import is_silent, read_audio
from voicepatch.errors import UserError

# --- what can be decoded and is no recording


def test_integers_saved_as_floats_are_errors(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1) * 32_768, 16_000, subtype="FLOAT")
    assert "times full scale" in message(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", noise(1, level=4), 16_000, subtype="FLOAT")
    read_audio(tmp_path / "a.wav")


def test_values_that_overflow_in_the_mix_are_an_error_without_a_warning(tmp_path, recwarn):
    soundfile.write(tmp_path / "a.wav", np.full((8_000, 2), 3e38), 16_000, subtype="FLOAT")
    assert "not finite" in message(tmp_path / "a.wav")
    assert not recwarn.list


@pytest.mark.parametrize("rate", [16_000, 96_000])
def test_five_samples_are_too_few(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(5, 0.1), rate)
    assert "shorter than 25 ms" in message(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.m4a", b"\0\0\0 ftypM4A \0\0\0\0", "convert it to wav, flac, ogg, opus or mp3"),
        ("m4a.wav", b"\0\0\0 ftypM4A \0\0\0\0", "convert it to wav, flac, ogg, opus or mp3"),
        ("a.raw", b"\0\1" * 8_000, "not a readable sound file"),
        ("line\nbreak.wav", b"no sound", r"line\nbreak.wav: not a readable sound file"),
        ("x" * 250 + ".wav", b"", "not a readable sound file"),
    ],
)
def test_another_kind_of_file_is_an_error_that_names_the_kinds_that_are_read(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content * 20)
    with pytest.raises(UserError) as caught:
        read_audio(tmp_path / name)
    assert what in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["AIFF", "AU", "W64"])
def test_a_container_whose_length_is_not_checked_is_an_error_that_names_it(tmp_path, kind):
    soundfile.write(tmp_path / "a.wav", noise(1), 16_000, format=kind)
    assert "convert it to wav, flac, ogg, opus or mp3" in message(tmp_path / "a.wav")


def test_a_folder_or_a_device_is_no_sound_file(tmp_path):
    assert "Is a directory" in message(tmp_path)
    assert "not a regular file" in message("/dev/zero")
    assert "No such file" in message(tmp_path / "a.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in message(tmp_path / "pipe.wav")
    assert module.seconds_of(tmp_path / "pipe.wav") == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.wav"))
        message(tmp_path / "s.wav")


# --- silence


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        (np.zeros(8_000), True),
        (np.full(8_000, 0.3), True),
        (noise(1, level=1e-5), True),
        (noise(1, level=3e-3), False),
        (np.concatenate([np.zeros(8_000), noise(0.1)[:, 0], np.zeros(8_000)]), False),
    ],
    ids=["zeros", "constant", "dither", "whisper", "one-word"],
)
def test_silence_is_what_no_microphone_records(tmp_path, samples, silent):
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_16")
    assert is_silent(read_audio(tmp_path / "a.wav")) is silent


def test_channels_that_cancel_are_silence(tmp_path):
    left = noise(1)
    soundfile.write(tmp_path / "a.wav", np.concatenate([left, -left], axis=1), 16_000, subtype="FLOAT")
    assert is_silent(read_audio(tmp_path / "a.wav"))
