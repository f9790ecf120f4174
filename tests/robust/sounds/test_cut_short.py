"""A sound file from which something is missing is an error."""

import numpy as np
import pytest
import soundfile

from tests.robust.sounds.made import at_once, every_container, message, mp3_frames, noise
from voicepatch.audio import container
from voicepatch.audio.decode import SAMPLE_RATE, read_audio


@every_container
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.97])
def test_a_file_that_was_cut_short_is_an_error(write, name, left):
    path = write(name, seconds=4)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    message(path)


def test_the_error_gives_the_length_that_is_there(write):
    path = write("pcm.wav")
    path.write_bytes(path.read_bytes()[: 44 + 16_000])
    assert "is cut short: its header announces 64000 bytes of sound, and 16000 are there" in message(path)


def test_a_wav_that_was_cut_by_one_byte_is_an_error(write):
    path = write("pcm.wav")
    path.write_bytes(path.read_bytes()[:-1])
    assert "is cut short" in message(path)


def flac_frames(content):
    """Where the frames of a FLAC begin; the first pair of bytes is their sync code."""
    first = content.index(b"\xff\xf8")
    return [i for i in range(first, len(content) - 2) if content[i : i + 3] == content[first : first + 3]]


def test_a_flac_that_lost_frames_in_the_middle_is_an_error(write):
    """libFLAC fills the gap with silence and says nothing."""
    path = write("16.flac", seconds=5)
    content = path.read_bytes()
    frames = flac_frames(content)
    path.write_bytes(content[: frames[5]] + content[frames[8] :])
    assert len(at_once(path)) == 5 * 16_000, "the decoder says so itself: this test has lost its object"
    assert "MD5" in message(path)


def test_an_ogg_that_lost_a_page_in_the_middle_is_an_error(write):
    path = write("vorbis.ogg", seconds=10)
    content = path.read_bytes()
    pages = [i for i in range(len(content)) if content[i : i + 4] == b"OggS"]
    assert len(pages) > 6
    path.write_bytes(content[: pages[3]] + content[pages[4] :])
    assert "a page is missing" in message(path)
    path.write_bytes(content[: pages[-2]])
    assert "a page is missing" in message(path)


def test_an_mp3_that_lost_frames_in_the_middle_is_an_error(write):
    path = write("mpeg.mp3", seconds=10)
    content = path.read_bytes()
    frames = mp3_frames(content)
    path.write_bytes(content[: frames[20][0]] + content[frames[40][0] :])
    assert "is cut short" in message(path)


def test_an_mp3_whose_end_the_decoder_leaves_out_is_an_error(tmp_path):
    """Without a length header, the decoder takes the first frame's bit rate for all and stops where that leads."""
    path = tmp_path / "a.mp3"
    samples = np.concatenate([noise(3, level=0.001), noise(7)])
    soundfile.write(path, samples, 16_000, format="MP3", bitrate_mode="VARIABLE")
    content = path.read_bytes()
    path.write_bytes(content[mp3_frames(content)[0][1] :])
    assert len(at_once(path)) < 8 * 16_000, "the decoder reads it all: this test has lost its object"
    assert "goes on after" in message(path)


def test_an_mp3_whose_length_is_an_estimate_that_is_too_long_is_read(tmp_path):
    """Its first frame, with the length, is cut off; the next ones are silence, from which more is expected to come."""
    path, sound = tmp_path / "quiet.mp3", np.concatenate([np.zeros((48_000, 1)), noise(4), np.zeros((80_000, 1))])
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.5}
    soundfile.write(path, sound, SAMPLE_RATE, **how)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])
    assert soundfile.info(path).frames > 1.5 * len(sound)
    assert len(read_audio(path)) == pytest.approx(len(sound), abs=2 * container.MP3_FRAME)


def test_tags_before_and_after_an_mp3_do_not_matter(write):
    path = write("mpeg.mp3")
    whole = read_audio(path)
    picture = b"ID3\x04\0\0" + bytes([0, 0, 40, 0]) + b"\xff\xfb\x90\0" * 1280
    content = path.read_bytes()
    path.write_bytes(picture + content + b"TAG" + b"\0" * 125)
    assert len(read_audio(path)) == len(whole)
    path.write_bytes(picture + content[: len(content) // 2])
    assert "is cut short" in message(path)
