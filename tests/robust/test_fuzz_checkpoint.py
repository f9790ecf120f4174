"""Whatever is in the files of a checkpoint or of the settings, they are read or refused in one line.

Seeded, so a failure comes again; the case that failed is in the assertion's message. A guard over each test turns a
hang or a great amount of memory into a failure.
"""

import copy
import json
import random
import resource
import shutil
import signal
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from voicepatch.commandline.config_file import read_settings_file
from voicepatch.errors import BAD_INPUT, BAD_USAGE, UserError
from voicepatch.models.checkpoint import checkpoint_hash, stored_tensors
from voicepatch.models.families import family_of
from voicepatch.models.folder import read_json
from voicepatch.models.mel import make_extractor
from voicepatch.models.opens2s import load_model
from voicepatch.models.opens2s_io import AUDIO, TURN
from voicepatch.models.tokens import read_prompt
from voicepatch.paths import DEMO_MODEL
from voicepatch.registry.catalogue import catalogue
from voicepatch.types.task import default_task

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "opens2s-tiny"
SECONDS_A_CASE = 5
SPARE_BYTES = 2 * 2**30
ODD = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 47, 10**6, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.5, -1.5, 1e-9, 1e300, float("nan"), float("inf"), "", "x", "qwen3", "5,5", "\n\r\x1b[31m", "\u2028", "\ud800"),
    *("a" * 5000, "../../etc/passwd", "\x00", [], {}, [[]], {"a": {}}, [1, 2], ["full_attention"] * 4, [None] * 100),
)


def stop(*_):
    raise TimeoutError("the case takes too long")


@contextmanager
def guard():
    """Much more memory than is in use ends in MemoryError, a case that hangs in TimeoutError; neither is UserError."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + SPARE_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_CASE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def read_or_refused(case, status=BAD_INPUT):
    """The body may succeed, or raise `UserError` with one short printable line; anything else names the case."""
    try:
        with guard():
            yield
    except UserError as error:
        message = str(error)
        assert message.isprintable() and 20 < len(message) < 2000, (case, message)
        assert error.status == status, (case, message)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {ascii(str(error))[:500]}, with {str(case)[:1500]}") from None


# --- mutations


def spoil_bytes(rng, content):
    """Some bytes changed, inserted, removed or doubled, or the tail cut off."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(content) + 1)
        how = rng.randrange(5)
        if how == 0 and content:
            content[at % len(content)] = rng.randrange(256)
        elif how == 1:
            content[at:at] = rng.choice((b"\xff", b"{", b"]", b'"', b",", b"\n", b"\x00", b"9" * 5000, b"[" * 5000))
        elif how == 2:
            del content[at : at + rng.choice((1, 2, 20))]
        elif how == 3:
            content[at:at] = content[at : at + rng.randrange(50)]
        else:
            del content[at:]
    return bytes(content)


def spoil_value(rng, value):
    """A JSON value in which one or two places, at any depth, hold something else, or nothing."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2))):
        place, odd = value, copy.deepcopy(rng.choice(ODD))
        while isinstance(place, (dict, list)) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.15:
                if rng.random() < 0.1:
                    del place[key]
                elif isinstance(place, dict) and rng.random() < 0.1:
                    place[rng.choice(("", "a\nb", "num_labels", "attn_implementation", "auto_map"))] = odd
                else:
                    place[key] = odd
                break
            place = place[key]
    return value


def spoil_json(rng, value):
    if rng.random() < 0.3:
        return spoil_bytes(rng, json.dumps(value).encode())
    return json.dumps(spoil_value(rng, value)).encode()


# --- weights

TENSORS = {
    "llm_model.a": torch.arange(6.0).reshape(2, 3),
    "llm_model.b": torch.ones(4, dtype=torch.bfloat16),
    "audio_adapter.c": torch.ones((), dtype=torch.float16),
    "llm2tts.weight": torch.ones(2),
}
SAFETENSORS_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I8",
    "I64",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E8M0",
    "F4",
    "C64",
    "X9",
    "",
)


def spoil_weights(rng, content):
    """A safetensors file with a changed length, header or tail."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    how = rng.randrange(6)
    if how == 0:
        length = rng.choice((0, 1, length - 1, length + 1, len(content), 10**8, 10**9, 2**40, 2**63, 2**64 - 1))
        return struct.pack("<Q", length) + content[8:]
    if how == 1:
        return spoil_bytes(rng, content)
    name = rng.choice(list(header))
    if how == 2:
        header[name]["dtype"] = rng.choice(SAFETENSORS_DTYPES)
    elif how == 3:
        header[name]["shape"] = rng.choice(([], [0], [-1], [2**62, 4], [10**9], [1] * 100, [6], [3, 2], None, "2"))
    elif how == 4:
        header[name]["data_offsets"] = rng.choice(([0, 0], [0, 10**12], [9, 3], [-8, 0], [0], [4, 28], [0, 2**64]))
    else:
        header = spoil_value(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def checkpoint(tmp_path):
    shutil.copytree(GOLDEN, tmp_path, ignore=shutil.ignore_patterns("golden.*"), dirs_exist_ok=True)
    return tmp_path


def test_no_weights_file_stops_the_loader(checkpoint):
    path = checkpoint / "model.safetensors"
    whole, rng = path.read_bytes(), random.Random(2)
    for _ in range(60):
        content = spoil_weights(rng, whole)
        path.write_bytes(content)
        with read_or_refused(content[:600]):
            load_model(checkpoint, "cpu", "float32")


def test_no_index_stops_the_reader(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        part = {key: tensor for key, tensor in TENSORS.items() if key.endswith("a") == name.startswith("a")}
        save_file(part, tmp_path / name)
    index = {key: "a.safetensors" if key.endswith("a") else "b.safetensors" for key in TENSORS}
    whole, rng = {"metadata": {"total_size": 100}, "weight_map": index}, random.Random(3)
    (tmp_path / "config.json").write_text('{"llm_config": {}}')
    for _ in range(600):
        content = spoil_json(rng, whole)
        (tmp_path / "model.safetensors.index.json").write_bytes(content)
        with read_or_refused(content):
            stored_tensors(tmp_path, family_of({"llm_config": {}}))
            checkpoint_hash(tmp_path)


# --- configurations


def test_no_config_stops_the_loader(checkpoint):
    path = checkpoint / "config.json"
    whole, rng, loaded = json.loads(path.read_text()), random.Random(4), 0
    del whole["tts_lm_config"]
    for _ in range(120):
        content = spoil_json(rng, whole)
        path.write_bytes(content)
        with read_or_refused(content):
            load_model(checkpoint, "cpu", "float32")
            loaded += 1
    assert 25 < loaded < 140


def test_no_feature_settings_stop_the_extractor(tmp_path):
    path, rng = tmp_path / "preprocessor_config.json", random.Random(5)
    whole = json.loads((GOLDEN / "audio" / path.name).read_text())
    for _ in range(300):
        content = spoil_json(rng, whole)
        path.write_bytes(content)
        with read_or_refused(content):
            make_extractor(path, read_json(path))


@pytest.mark.parametrize(("name", "n_cases"), [("tokenizer.json", 50), ("tokenizer_config.json", 50)])
def test_no_tokenizer_stops_the_program(tmp_path, name, n_cases, capfd):
    shutil.copytree(DEMO_MODEL / "audio", tmp_path / "audio")
    for file in DEMO_MODEL.glob("*.json"):
        shutil.copy(file, tmp_path)
    whole, rng = json.loads((tmp_path / name).read_text()), random.Random(6)
    for _ in range(n_cases):
        content = spoil_json(rng, whole)
        (tmp_path / name).write_bytes(content)
        with read_or_refused(content):
            read_prompt(tmp_path, AUDIO, TURN, default_task().question, default_task().labels)


# --- settings

SETTINGS = """\
layers_to_patch: [1, 4, 6-8]
patch_alpha: 0.5
align: truncate_to_min
max_pairs_prosody: 2
pair_sampling_seed: 7
device: cpu
same_speaker: true
out: &here results
"""
YAML_PIECES = (
    *("*here", "&a [*a]", "!!python/object/apply:os.getcwd []", "!!int x", "!!float", "!!binary =", "!!timestamp 1"),
    *("2020-99-99", "0x" + "F" * 5000, "9" * 5000, "? [a]", "<<: {a: 1}", "{" * 2000, "[" * 2000, "- ", "!!set {a}"),
    *("%YAML 9.9", "---", "...", "\t", "'", '"', "|", "\x00", "\u2028", "=", "!!bool x", "!!null x", "1:99:99", "~"),
)


def test_no_settings_file_stops_the_command_line(tmp_path):
    path, rng = tmp_path / "config.yaml", random.Random(7)
    for _ in range(300):
        content = SETTINGS.encode()
        if rng.random() < 0.6:
            lines = SETTINGS.splitlines()
            at = rng.randrange(len(lines))
            key = lines[at].split(":")[0]
            piece = rng.choice(YAML_PIECES) if rng.random() < 0.6 else json.dumps(rng.choice(ODD))
            lines[at] = rng.choice((f"{key}: {piece}", piece, f"{piece}: {key}"))
            content = "\n".join(lines).encode("utf-8", "surrogatepass")
        else:
            content = spoil_bytes(rng, content)
        path.write_bytes(content)
        with read_or_refused(content, BAD_USAGE):
            json.dumps(read_settings_file(path, "prosody", [catalogue()["patch"]]), default=str)
