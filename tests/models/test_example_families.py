"""The plugins in docs/own-model.md and docs/families: each on a tiny random checkpoint of the published layout."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from cli import cli
from pairs import build_pairs
from tests.fake_devices import fake_devices
from tests.models.example_families import BUILDERS, plugin_of
from tests.models.families.conftest import sound
from tests.models.families.tiny import N_LAYERS
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.subject import load_subject
from voicepatch.engine.textbook import hooked
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import join
from voicepatch.registry.catalogue import add_plugin, load_intervention, reset_plugins
from voicepatch.runs.checks import self_patch_check
from voicepatch.runs.model_contract import model_check
from voicepatch.runs.pair_loop import run_table
from voicepatch.types.task import Task

NOISE = 2e-5
SECONDS = (0.025, 0.11, 0.5, 1, 3.3, 10, 29.99, 30, 30.5, 61)
# What the published code gives for `sound(31.7, seed=5)` and this checkpoint: the number of positions, four numbers of
# the last one, and the first four logits. It ran with the transformers that it asks for (4.51, 4.44 for MiniCPM-o).
PUBLISHED = {
    "ultravox": (199, [0.7371, -1.4755, -0.0737, -0.8775], [-6.0104, 3.6418, -1.0506, -5.9773]),
    "ultravox, complete": (199, [0.543, -1.2697, -0.0604, -0.7487], [-6.2402, 3.9319, -0.3767, -5.4257]),
    "desta25": (6, [1.0977, -3.2715, 3.2368, -2.6571], [-1.3468, -3.7918, 0.6647, -3.4872]),
    "minicpm_o": (854, [-1.1651, 3.5025, -0.6221, -0.0047], [-0.7344, -0.9335, 0.7703, 0.0373]),
}


@pytest.fixture(autouse=True)
def with_gradients():
    """Models are loaded and run as outside of tests."""
    with torch.inference_mode(False):
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A function that gives the checkpoint of an example, written once."""
    cache = {}

    def write(name):
        if name not in cache:
            cache[name] = tmp_path_factory.mktemp("example")
            BUILDERS[name](cache[name])
        return cache[name]

    return write


@pytest.fixture(params=list(BUILDERS))
def example(request, written, tmp_path):
    """Each example in turn: its plugin, its checkpoint, and the subject."""
    plugin, folder = plugin_of(request.param, tmp_path), written(request.param)
    add_plugin(plugin)
    yield SimpleNamespace(name=request.param, plugin=plugin, folder=folder, subject=load_subject(folder, device="cpu"))
    reset_plugins()


def clip_of(model, waveform):
    return join(model, model.encode(model.features(waveform)))


@pytest.mark.parametrize("example", list(PUBLISHED), indirect=True)
def test_frames_and_logits_are_those_of_the_published_code(example):
    model, (n_audio, frame, logits) = example.subject.model, PUBLISHED[example.name]
    clip = clip_of(model, sound(31.7, seed=5))
    assert clip.n_audio == n_audio
    last = clip.inputs_embeds[0, clip.span.stop - 1, :4]
    assert (last - torch.tensor(frame)).abs().max() < 1e-4
    found = model.llm(inputs_embeds=clip.inputs_embeds).logits[0, -1, :4]
    assert (found - torch.tensor(logits)).abs().max() < 1e-4


def test_the_contract_holds(example, demo_data):
    contract = model_check(example.subject, demo_data.clips[0])
    patched = self_patch_check(example.subject, demo_data.clips[:2], range(N_LAYERS))
    checks = [*contract["checks"], *patched["checks"]]
    assert not [check for check in checks if not check["passed"]]
    if example.name in PUBLISHED:  # it has a reference of its own
        assert checks[0]["numbers"]["max_abs_logit_difference"] < NOISE


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_clip_takes_the_positions_that_its_duration_gives(example, seconds):
    model, waveform = example.subject.model, sound(seconds, seed=3)
    frames = model.encode(model.features(waveform))
    assert len(frames) == model.n_audio(len(waveform)) > 0 and frames.isfinite().all()


@pytest.mark.parametrize("example", list(PUBLISHED), indirect=True)
def test_every_engine_patches_as_plain_hooks_in_the_reference_do(example):
    model, sounds = example.subject.model, [sound(1.3, seed=1), sound(0.9, seed=2)]
    pair = align(*(clip_of(model, waveform) for waveform in sounds))
    donor, expected = {}, []
    with hooked(model.llm, lambda layer, stream: donor.__setitem__(layer, stream[:, pair.b_span].clone())):
        model.reference(sounds[1])
    for patched in range(N_LAYERS):

        def write(layer, stream, patched=patched):
            if layer != patched:
                return None
            stream = stream.clone()
            stream[:, pair.a_span] = donor[layer]
            return stream

        with hooked(model.llm, write):
            expected.append(model.reference(sounds[0]))
    assert (torch.stack(expected)[:-1] - model.reference(sounds[0])).abs().amax(1).min() > 100 * NOISE
    for name in ("stepwise", "sweep", "tail"):
        engine = Engine(model.llm, name)
        found = engine.readouts(load_intervention("patch"), pair, range(N_LAYERS), [{"alpha": 1.0}])
        assert (found.logits[1:] - torch.stack(expected)).abs().max() < NOISE


@pytest.mark.parametrize("name", ["knockout", "attribution"])
def test_other_experiments_run(example, demo_data, name):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=2, seed=42).pairs
    table = run_table(example.subject, load_intervention(name), pairs)
    assert len(table) >= 2 * N_LAYERS and table["delta_logit_target"].abs().max() > 0


def test_a_run_from_the_command_line(example, tmp_path):
    reset_plugins()
    options = ("--plugin", example.plugin, "--model", example.folder, "--device", "cpu", "--out", tmp_path / "run")
    words = ("patch", "--kind", "prosody", "--max-pairs", 4, "--no-need", "--no-figures", *options)
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    records = (tmp_path / "run" / "patching_records_prosody.jsonl").read_text().splitlines()
    assert len(records) == 4 * N_LAYERS


def test_another_question_is_asked_of_the_same_weights(example):
    two = example.subject.asking(Task(name="two", question="Is this happy or sad?", labels=("happy", "sad")))
    assert "Is this happy or sad?" in two.model.prompt.text and two.model.llm is example.subject.model.llm
    assert two.model.prompt.span == example.subject.model.prompt.span


def test_another_dtype_gives_what_transformers_gives(written):
    add_plugin(plugin_of("ultravox", None))
    folder = written("ultravox")
    model = load_subject(folder, device="cpu", dtype="bfloat16").model
    frames = model.encode(model.features(sound(1, seed=1)))
    assert {frames.dtype, model.llm.dtype} == {torch.bfloat16}
    plain = LlamaForCausalLM.from_pretrained(folder / "llm", dtype=torch.bfloat16)
    ids = torch.arange(300)[None]
    assert torch.equal(model.llm(ids).logits, plain(ids).logits)  # rotary frequencies are in float32 in both
    reset_plugins()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_each_tensor_is_on_its_device(written, demo_data, tmp_path, name):
    add_plugin(plugin_of(name, tmp_path))
    with fake_devices(2):
        subject = load_subject(written(name), device="cuda:0,cuda:1", dtype="float32")
        assert model_check(subject, demo_data.clips[0])["passed"]
        assert self_patch_check(subject, demo_data.clips[:2], range(N_LAYERS))["passed"]
    reset_plugins()


# --- folders that are not as published


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


NAME = "multi_modal_projector.linear_1.weight"
SPOILED = {
    "no text model": (
        "ultravox", lambda folder: shutil.rmtree(folder / "llm"), ["llm: missing", "llama"],
    ),
    "no encoder": (
        "desta25", lambda folder: shutil.rmtree(folder / "whisper"), ["whisper: missing", "openai/whisper-tiny"],
    ),
    "a missing tensor": (
        "ultravox", lambda folder: change_weights(folder / "model.safetensors", lambda all: all.pop(NAME)),
        ["lacks tensors", NAME],
    ),
    "an unexpected tensor": (
        "desta25",
        lambda folder: change_weights(
            folder / "model.safetensors", lambda all: all.update({"perception.connector.more": torch.ones(1)})
        ),
        ["unexpected tensors", "perception.connector.more"],
    ),
    "a tensor of another shape": (
        "ultravox",
        lambda folder: change_weights(folder / "model.safetensors", lambda all: all.update({NAME: torch.ones(2, 2)})),
        [NAME, "[2, 2]", "[48, 256]"],
    ),
    "a value that is not finite": (
        "minicpm_o",
        lambda folder: change_weights(folder / "model.safetensors", lambda all: all["apm.conv1.bias"].fill_(torch.nan)),
        ["conv1.bias", "not finite"],
    ),
    "another activation": ("ultravox", lambda folder: change_config(folder, projector_act="gelu"), ["projector_act"]),
    "a LoRA": ("desta25", lambda folder: change_config(folder, use_lora=True), ["use_lora"]),
    "another version": ("minicpm_o", lambda folder: change_config(folder, version="4.5"), ["4.5", "2.6"]),
    "no chat template": (
        "ultravox", lambda folder: (folder / "chat_template.jinja").unlink(), ["chat template", "<|audio|>"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILED)
def test_a_folder_that_is_not_as_published_is_named(written, tmp_path, how):
    name, spoil, words = SPOILED[how]
    folder = shutil.copytree(written(name), tmp_path / "copy")
    spoil(folder)
    add_plugin(plugin_of(name, tmp_path))
    with pytest.raises(UserError) as error:
        load_subject(folder, device="cpu")
    assert not [word for word in words if word not in str(error.value)], str(error.value)
    reset_plugins()
