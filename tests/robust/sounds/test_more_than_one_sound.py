"""A file with more than one sound in it is read completely, or is an error; tags and zeros do not matter."""

import io
import struct

import numpy as np
import pytest
import soundfile

from tests.robust.sounds.made import every_container, message, mp3_frames, noise
from voicepatch.audio import container
from voicepatch.audio.decode import read_audio

ID3V2 = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + b"\0" * 256
ID3V1 = b"TAG" + b"x" * 125
APE = b"APETAGEX" + struct.pack("<4I", 2000, 40, 1, 0x80000000) + b"\0" * 8 + b"12345678"  # with its header
APE = APE.replace(b"\0\0\0\x80", b"\0\0\0\xa0") + APE[:32]
BETWEEN = {"nothing": b"", "ID3v2": ID3V2, "ID3v1": ID3V1, "zeros": b"\0" * 9000}


@every_container
@pytest.mark.parametrize("between", BETWEEN)
def test_two_sounds_in_one_file_are_both_read_or_an_error(write, name, between):
    """libsndfile reads the first of two and says nothing."""
    content = write(name, seconds=0.5).read_bytes()
    path = write(name, seconds=2)
    path.write_bytes(path.read_bytes() + BETWEEN[between] + content)
    text = message(path)
    assert "goes on after 2.0" in text or "not a readable sound file" in text  # ADPCM fills its last block
    if name.endswith(("flac", "ogg", "opus", "mp3")):
        left = int(text.split("of sound: ")[1].split()[0])
        assert left == pytest.approx(len(BETWEEN[between] + content), abs=container.STEP)


@pytest.mark.parametrize("second", ["pcm.wav", "16.flac", "vorbis.ogg", "opus.opus", "mpeg.mp3"])
@pytest.mark.parametrize("first", ["pcm.wav", "16.flac", "vorbis.ogg", "opus.opus", "mpeg.mp3"])
def test_a_short_sound_of_another_kind_behind_the_first_is_noticed(write, first, second):
    content = write(second, seconds=0.06).read_bytes()
    path = write(first, seconds=1)
    path.write_bytes(path.read_bytes() + content)
    message(path)


def test_a_chained_ogg_of_another_rate_is_an_error(write, tmp_path):
    path = write("vorbis.ogg")
    soundfile.write(tmp_path / "b.ogg", noise(0.1), 16_000, format="OGG", subtype="VORBIS")
    path.write_bytes(path.read_bytes() + (tmp_path / "b.ogg").read_bytes())
    assert "goes on after 2.00 s" in message(path)


def mp3_without_length(seconds):
    file, how = (
        io.BytesIO(),
        {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.5},
    )
    soundfile.write(file, noise(seconds), 16_000, **how)
    content = file.getvalue()
    return content[mp3_frames(content)[0][1] :]


@pytest.mark.parametrize("between", [b"", ID3V2, ID3V1], ids=["nothing", "ID3v2", "ID3v1"])
def test_joined_mp3s_without_a_length_header_are_read_both(tmp_path, between):
    one = mp3_without_length(2)
    (tmp_path / "one.mp3").write_bytes(one)
    (tmp_path / "two.mp3").write_bytes(one + between + one)
    assert len(read_audio(tmp_path / "two.mp3")) == 2 * len(read_audio(tmp_path / "one.mp3")) > 60_000


@pytest.mark.parametrize("end", [b"", ID3V1], ids=["bare", "tagged"])
def test_a_last_frame_of_an_mp3_that_holds_only_padding_is_no_second_sound(tmp_path, end):
    """Of one length in ten, the encoder's last frame lies beyond the sound, and the decoder leaves it."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(1, 44_100)[:9_240], 44_100, format="MP3", subtype="MPEG_LAYER_III")
    content = path.read_bytes()
    with path.open("rb", buffering=0) as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        assert len(sound.read()) == 9_240
        assert container.STEP < len(content) - file.tell() < 200, (
            "the decoder leaves no frame: this test lost its object"
        )
    path.write_bytes(content + end)
    assert len(read_audio(path)) == round(9_240 / 44.1 * 16)
    path.write_bytes(content + end + content)
    assert "goes on after 0.21 s" in message(path)


@every_container
@pytest.mark.parametrize("end", [ID3V1, APE, APE + ID3V1, b"\0" * 5000], ids=["ID3v1", "APE", "both", "zeros"])
def test_a_tag_or_zeros_behind_a_sound_do_not_matter(write, name, end):
    path = write(name)
    whole = read_audio(path)
    path.write_bytes(path.read_bytes() + end)
    np.testing.assert_array_equal(read_audio(path), whole)


def with_chunks(content, *chunks, order="<"):
    content += b"".join(
        name + struct.pack(order + "I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return content[:4] + struct.pack(order + "I", len(content) - 8) + content[8:]


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_chunks_behind_the_sound_of_a_wav_do_not_matter(tmp_path, endian):
    soundfile.write(tmp_path / "a.wav", noise(1.00005), 16_000, "PCM_U8" if endian == "LITTLE" else None, endian)
    whole, content = read_audio(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes()
    chunks = (b"LIST", b"INFOISFT" + b"x" * 91), (b"id3 ", ID3V2 + b"\xff\xfb" * 99), (b"bext", b"y" * 602)
    order = "<" if endian == "LITTLE" else ">"
    (tmp_path / "a.wav").write_bytes(with_chunks(content, *chunks, order=order))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), whole)
    (tmp_path / "a.wav").write_bytes(with_chunks(content, *chunks, order=order) + noise(0.1).tobytes())
    assert "goes on after 1.00 s" in message(tmp_path / "a.wav")


@pytest.mark.parametrize("claim", [0, 16_000])
def test_a_wav_whose_header_gives_too_small_a_length_is_an_error(write, claim):
    """0 is what a recorder that crashed, or a program that wrote into a pipe, leaves there."""
    path = write("pcm.wav")
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", claim)
    path.write_bytes(content)
    text = message(path)
    assert f"goes on after {claim / 32_000:.2f} s of sound: {64_000 - claim} bytes are left" in text
    assert ("the length in its header is 0, as where it was written into a pipe" in text) == (claim == 0)
    assert "ffmpeg -i IN OUT.wav" in text


def mp3_in_wav(content):
    """A WAV as ffmpeg and Windows write it with MP3 data (WAVE_FORMAT_MPEGLAYER3)."""
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 3_000, 1, 0, 12, 1, 2, 108, 1, 0)
    return with_chunks(b"RIFF\0\0\0\0WAVE", (b"fmt ", form), (b"data", content))


def test_mp3_data_in_a_wav_are_read_as_the_mp3_is(tmp_path):
    content = mp3_without_length(3)
    (tmp_path / "a.mp3").write_bytes(content)
    (tmp_path / "a.wav").write_bytes(mp3_in_wav(content))
    sound = soundfile.info(tmp_path / "a.wav")
    assert sound.subtype == "MPEG_LAYER_III"
    waveform = read_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(waveform, read_audio(tmp_path / "a.mp3"))
    assert sound.frames > len(waveform) > 3 * 16_000
    (tmp_path / "a.wav").write_bytes(mp3_in_wav(content)[:-1000])
    assert "is cut short" in message(tmp_path / "a.wav")
