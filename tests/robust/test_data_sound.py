"""A sound is heard whole or refused, whatever its container claims."""

import io
import os
import socket
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from voicepatch.audio import container
from voicepatch.audio import decode as module
from voicepatch.audio.decode import SAMPLE_RATE, is_silent, read_audio
from voicepatch.errors import UserError

CONTAINERS = {  # name: format, subtype, rate
    "pcm.wav": ("WAV", "PCM_16", 16_000),
    "float.wav": ("WAV", "FLOAT", 44_100),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 16_000),
    "surround.wav": ("WAVEX", "PCM_24", 48_000),
    "large.wav": ("RF64", "PCM_16", 16_000),
    "16.flac": ("FLAC", "PCM_16", 16_000),
    "24.flac": ("FLAC", "PCM_24", 44_100),
    "8.flac": ("FLAC", "PCM_S8", 16_000),
    "vorbis.ogg": ("OGG", "VORBIS", 44_100),
    "opus.opus": ("OGG", "OPUS", 48_000),
    "mpeg.mp3": ("MP3", "MPEG_LAYER_III", 16_000),
}
every_container = pytest.mark.parametrize("name", CONTAINERS)


def noise(seconds, rate=SAMPLE_RATE, channels=1, level=0.1):
    return np.clip(level * np.random.default_rng(0).standard_normal((int(seconds * rate), channels)), -1, 1)


@pytest.fixture
def write(tmp_path):
    """A function that writes two seconds of noise in a container."""

    def write(name, seconds=2, channels=1):
        container, subtype, rate = CONTAINERS[name]
        path = tmp_path / name
        soundfile.write(path, noise(seconds, rate, channels), rate, format=container, subtype=subtype)
        return path

    return write


def message(path):
    with pytest.raises(UserError) as caught:
        read_audio(path)
    assert str(caught.value).isprintable() and str(path) in str(caught.value)
    return str(caught.value)


def at_once(path):
    """Decoded in one piece, at the file's own rate."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)


# --- the whole sound


@every_container
@pytest.mark.parametrize("block", [2**20, 10_000])
def test_a_sound_read_in_blocks_is_the_sound_read_at_once(write, name, block, monkeypatch):
    path = write(name, channels=1 if name == "adpcm.wav" else 2)
    monkeypatch.setattr(module, "BLOCK", block)
    expected = module.soxr.resample(at_once(path), CONTAINERS[name][2], SAMPLE_RATE)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-6 if name == "mpeg.mp3" else 0)


def test_six_channels_at_96_khz_are_mixed(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1, 96_000, 6), 96_000)
    assert len(read_audio(tmp_path / "a.wav")) == 16_000


def test_ten_minutes_are_read_block_by_block(tmp_path):
    """26 million samples of two channels would be 211 MB at once, before anything is made of them."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 22_050, 2) as file:
        for _ in range(600):
            file.write(np.full((22_050, 2), 0.1))
    tracemalloc.start()
    waveform = read_audio(tmp_path / "a.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(waveform) == 600 * 16_000
    assert peak < 2.5 * waveform.nbytes + 2**25


# --- less than the whole


@every_container
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.97])
def test_a_file_that_was_cut_short_is_refused(write, name, left):
    path = write(name, seconds=4)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    message(path)


def test_the_refusal_says_how_much_is_there(write):
    path = write("pcm.wav")
    path.write_bytes(path.read_bytes()[: 44 + 16_000])
    assert "is cut short: its header announces 64000 bytes of sound, and 16000 are there" in message(path)


def test_a_wav_that_was_cut_by_one_byte_is_refused(write):
    path = write("pcm.wav")
    path.write_bytes(path.read_bytes()[:-1])
    assert "is cut short" in message(path)


def flac_frames(content):
    """Where the frames of a FLAC begin; the first pair of bytes is their sync code."""
    first = content.index(b"\xff\xf8")
    return [i for i in range(first, len(content) - 2) if content[i : i + 3] == content[first : first + 3]]


def test_a_flac_that_lost_frames_in_the_middle_is_refused(write):
    """libFLAC fills the gap with silence and says nothing."""
    path = write("16.flac", seconds=5)
    content = path.read_bytes()
    frames = flac_frames(content)
    path.write_bytes(content[: frames[5]] + content[frames[8] :])
    assert len(at_once(path)) == 5 * 16_000, "the decoder says so itself: this test has lost its object"
    assert "MD5" in message(path)


def test_an_ogg_that_lost_a_page_in_the_middle_is_refused(write):
    path = write("vorbis.ogg", seconds=10)
    content = path.read_bytes()
    pages = [i for i in range(len(content)) if content[i : i + 4] == b"OggS"]
    assert len(pages) > 6
    path.write_bytes(content[: pages[3]] + content[pages[4] :])
    assert "a page is missing" in message(path)
    path.write_bytes(content[: pages[-2]])
    assert "a page is missing" in message(path)


def mp3_frames(content):
    """(start, end) of each frame of a 16 kHz MP3 (MPEG 2, layer III)."""
    kilobits = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
    frames, start = [], 0
    while start + 4 <= len(content):
        assert content[start] == 0xFF
        end = start + 72 * kilobits[content[start + 2] >> 4] * 1000 // 16_000 + (content[start + 2] >> 1 & 1)
        frames.append((start, end))
        start = end
    return frames


def test_an_mp3_that_lost_frames_in_the_middle_is_refused(write):
    path = write("mpeg.mp3", seconds=10)
    content = path.read_bytes()
    frames = mp3_frames(content)
    path.write_bytes(content[: frames[20][0]] + content[frames[40][0] :])
    assert "is cut short" in message(path)


def test_an_mp3_of_which_the_decoder_leaves_the_end_is_refused(tmp_path):
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


# --- more than the whole

ID3V2 = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + b"\0" * 256
ID3V1 = b"TAG" + b"x" * 125
APE = b"APETAGEX" + struct.pack("<4I", 2000, 40, 1, 0x80000000) + b"\0" * 8 + b"12345678"  # with its header
APE = APE.replace(b"\0\0\0\x80", b"\0\0\0\xa0") + APE[:32]
BETWEEN = {"nothing": b"", "ID3v2": ID3V2, "ID3v1": ID3V1, "zeros": b"\0" * 9000}


@every_container
@pytest.mark.parametrize("between", BETWEEN)
def test_two_sounds_in_one_file_are_read_both_or_refused(write, name, between):
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


def test_a_chained_ogg_of_another_rate_is_refused(write, tmp_path):
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
def test_a_wav_whose_header_gives_too_small_a_length_is_refused(write, claim):
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


# --- what a header claims


def test_an_hour_of_silence_in_a_small_file_is_refused_by_its_header(tmp_path, monkeypatch):
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
def test_a_flac_that_claims_what_is_not_there_is_refused_without_room_for_it(write, claims, what):
    path = write("16.flac")
    path.write_bytes(flac_with(path.read_bytes(), **claims))
    tracemalloc.start()
    text = message(path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert what in text


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_a_rate_that_no_recorder_has_is_refused(write, rate):
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


# --- what can be decoded and is no recording


def test_integers_saved_as_floats_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1) * 32_768, 16_000, subtype="FLOAT")
    assert "times full scale" in message(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", noise(1, level=4), 16_000, subtype="FLOAT")
    read_audio(tmp_path / "a.wav")


def test_values_that_overflow_in_the_mix_are_refused_without_a_warning(tmp_path, recwarn):
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
def test_another_kind_of_file_is_refused_with_the_kinds_that_are_read(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content * 20)
    with pytest.raises(UserError) as caught:
        read_audio(tmp_path / name)
    assert what in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["AIFF", "AU", "W64"])
def test_a_container_whose_length_is_not_checked_is_refused_by_its_name(tmp_path, kind):
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
