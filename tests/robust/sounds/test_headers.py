"""What a header claims takes no memory before it is checked."""

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from tests.robust.sounds.made import at_once, message
from voicepatch.audio import decode as module
from voicepatch.audio.decode import read_audio


def test_an_hour_of_silence_in_a_small_file_is_an_error_found_in_its_header(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(1210):
            file.write(np.zeros(16_000, "int16"))
    assert path.stat().st_size < 2**16
    assert len(read_audio(path, max_seconds=1210)) == 1210 * 16_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    text = message(path)
    assert "lasts 1210 s by its header, and at most 1200 s are read" in text and "--max-seconds" in text


def test_no_more_is_decoded_than_the_header_claims(write):
    """So the limit holds for a header that lies: libsndfile counts frames, whatever the decoder would still give."""
    path = write("16.flac")
    path.write_bytes(flac_with(path.read_bytes(), total=8_000))
    assert len(at_once(path)) == 8_000


def test_a_file_too_large_for_memory_is_not_read(write, monkeypatch):
    path = write("pcm.wav")
    monkeypatch.setattr(module, "MAX_BYTES", path.stat().st_size - 1)
    assert "is larger than" in message(path)


@pytest.mark.parametrize("claim", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_cannot_know_its_length_and_is_read(write, claim):
    path = write("pcm.wav")
    whole = read_audio(path)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", claim)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path), whole)


def flac_with(content, rate=None, total=None):
    """Another rate or count of samples in the STREAMINFO of a FLAC."""
    word = int.from_bytes(content[18:26], "big")
    if rate is not None:
        word = word & ~(0xFFFFF << 44) | rate << 44
    if total is not None:
        word = word & ~0xFFFFFFFFF | total
    return content[:18] + word.to_bytes(8, "big") + content[26:]


@pytest.mark.parametrize(
    ("claims", "what"),
    [
        ({"total": 2**36 - 1}, "lasts 4294967 s by its header, and at most 1200 s are read"),
        ({"total": 0}, "has no length in its header"),
        ({"total": 1200 * 16_000}, "not a readable sound file"),
        ({"total": 8_000}, "MD5"),
        ({"rate": 999, "total": 1}, "claims a rate of 999 Hz"),
    ],
)
def test_a_flac_whose_header_claims_too_much_is_an_error_and_takes_no_memory(write, claims, what):
    path = write("16.flac")
    path.write_bytes(flac_with(path.read_bytes(), **claims))
    tracemalloc.start()
    text = message(path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert what in text


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_an_implausible_sample_rate_is_an_error(write, rate):
    path = write("pcm.wav")
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert f"claims a rate of {rate} Hz" in message(path)


@pytest.mark.parametrize("channels", [1_000, 65_535])
def test_many_channels_take_no_more_room_than_one(write, channels):
    path = write("pcm.wav")
    content = bytearray(path.read_bytes())
    content[22:24], content[32:34] = struct.pack("<H", channels), struct.pack("<H", channels * 2 % 65536)
    path.write_bytes(content)
    tracemalloc.start()
    message(path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
