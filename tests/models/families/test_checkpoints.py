"""A checkpoint of any family is loaded whole or refused in one line, from its own files alone."""

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from models.checkpoint import checkpoint_hash
from models.families import FAMILIES, family_of
from models.folder import checkpoint_folder
from models.speech_lm import join
from tests.models.families.builders import BUILDERS
from tests.models.families.conftest import load

NAMES = list(BUILDERS)
FEATURES = "preprocessor_config.json"


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- weights


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_missing_unexpected_misshapen_or_not_finite_is_named(copy, refused, name):
    folder = copy(name)
    whole = load_file(folder / "model.safetensors")
    chosen = next(key for key in whole if re.search(r"layers\.1\.mlp\.(down_proj|experts\.0\.down_proj)\.weight$", key))
    proj = "down_proj"

    def spoil(change):
        tensors = {key: tensor.clone() for key, tensor in whole.items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    spoil(lambda tensors: tensors[chosen].view(-1)[3:4].fill_(float("nan")))
    with refused("layers.1.mlp", proj, "not finite"):
        load(folder)
    spoil(lambda tensors: tensors.update({"lm_head.extra": torch.zeros(3)}))
    with refused("unexpected", "lm_head.extra"):
        load(folder)
    if "experts" in chosen:  # a stack of experts cannot be made of one that lacks or differs
        return
    spoil(lambda tensors: tensors.pop(chosen))
    with refused("layers.1.mlp.down_proj"):
        load(folder)
    spoil(lambda tensors: tensors.update({chosen: torch.zeros(2, 3)}))
    with refused("layers.1.mlp.down_proj"):
        load(folder)


@pytest.mark.parametrize("name", NAMES)
def test_weights_written_over_while_the_model_runs_change_nothing(copy, name):
    folder = copy(name)
    stored = next(t.dtype for t in load_file(folder / "model.safetensors").values() if t.is_floating_point())
    speech = load(folder, str(stored).removeprefix("torch."))  # the file's own dtype, so that none is converted
    before = {key: tensor.clone() for key, tensor in speech.llm.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(bytes((folder / "model.safetensors").stat().st_size))
    assert all(torch.equal(tensor, before[key]) for key, tensor in speech.llm.state_dict().items())


def test_an_expert_that_is_missing_is_refused(copy, refused):
    folder = copy("Qwen3-Omni")
    change_tensors(folder, lambda tensors: tensors.pop(next(key for key in tensors if "experts.3.down_proj" in key)))
    with refused("layers.", "experts"):
        load(folder)


@pytest.mark.parametrize("name", ["Qwen2-Audio", "Voxtral"])
def test_pickles_and_quantised_weights_are_refused(copy, refused, name):
    folder = copy(name)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with refused("no model.safetensors", "pickled"):
        load(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    change_config(folder, quantization_config={"quant_method": "awq"})
    with refused("quantization_config"):
        load(folder)


def test_more_layers_than_weights_are_refused_before_they_are_built(copy, refused):
    folder = copy("Qwen2-Audio")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config=text | {"num_hidden_layers": 10**4, "layer_types": None})
    with refused("num_hidden_layers", "one checkpoint"):
        load(folder)


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "vocab_size"])
def test_no_memory_is_taken_for_more_values_than_the_weights_hold(copy, refused, key):
    folder = copy("Qwen2-Audio")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config=text | {key: 2**24})
    with refused("config.json", "the weights hold", "one checkpoint"):
        load(folder)


def test_half_precision_gives_finite_frames(made):
    for name in NAMES:
        speech = load(made(name).tiny.folder, "bfloat16")
        clip = join(speech, speech.encode(speech.features(made(name).sounds[1])))
        logits = speech.llm(inputs_embeds=clip.inputs_embeds, use_cache=False, logits_to_keep=1).logits
        assert logits.dtype == speech.llm.dtype == torch.bfloat16 and logits.isfinite().all(), name


def test_loading_leaves_the_log_level_and_the_screen_alone(made, capsys):
    before = transformers.logging.get_verbosity()
    load(made("Granite Speech").tiny.folder)
    assert transformers.logging.get_verbosity() == before and capsys.readouterr().err == ""


# --- a whole Omni folder


def test_the_thinker_is_read_from_a_whole_folder_and_the_talker_is_not(made, tmp_path):
    case = made("Qwen2.5-Omni")
    folder = shutil.copytree(case.tiny.folder, tmp_path / "whole")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": config}))
    tensors = {f"thinker.{key}": tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    tensors |= {"talker.x": torch.zeros(2), "token2wav.y": torch.full((2,), float("nan"))}
    save_file(tensors, folder / "model.safetensors")
    whole = load(folder).llm.state_dict()
    assert all(torch.equal(whole[key], tensor) for key, tensor in case.speech.llm.state_dict().items())


# --- LoRA


@pytest.mark.parametrize(("name", "where"), [("Granite Speech", "."), ("Phi-4-multimodal", "speech-lora")])
def test_a_lora_that_is_missing_odd_or_broken_is_refused(copy, refused, name, where):
    folder = copy(name)
    config, weights = folder / where / "adapter_config.json", folder / where / "adapter_model.safetensors"
    settings, tensors = json.loads(config.read_text()), load_file(weights)
    for odd in ({"use_dora": True}, {"rank_pattern": {"q": 2}}, {"r": 0}, {"bias": "all"}, {"peft_type": "IA3"}):
        config.write_text(json.dumps(settings | odd))
        with refused("adapter_config.json", "merge"):
            load(folder)
    config.write_text(json.dumps(settings))
    first = next(key for key in tensors if "lora_A" in key)
    for spoiled, word in (
        ({first: torch.zeros(4, 3)}, "shape"),
        ({first: tensors[first] * float("nan")}, "NaN"),
        ({"base_model.model.layers.99.x.lora_A.weight": tensors[first].clone()}, "0 places"),
        ({"embed.weight": tensors[first].clone()}, "no part of a LoRA"),
    ):
        save_file(tensors | spoiled, weights)
        with refused("adapter_model.safetensors", word):
            load(folder)
    weights.unlink()
    with refused("adapter_model.safetensors", "missing"):
        load(folder)


def test_a_granite_model_without_a_lora_has_no_system_turn_and_needs_none(tmp_path):
    with torch.inference_mode(False):
        tiny = BUILDERS["Granite Speech"](tmp_path, lora=False)
    speech = load(tiny.folder)
    assert speech.prompt.system is None and speech.prompt.text.startswith("<|start_of_role|>user")


# --- identity


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_covers_every_file_that_is_read(copy, name):
    folder = copy(name)
    before = checkpoint_hash(folder)
    assert before == checkpoint_hash(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        is_read = path.name != "generation_config.json"
        assert (checkpoint_hash(folder) != before) == is_read, path.name
        path.write_bytes(content)
    if name != "Voxtral":
        (folder / "chat_template.jinja").write_text("x")
        assert checkpoint_hash(folder) != before


# --- which family


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("gemma3n", ("Gemma 3n", "per-layer inputs", "every block")),
        ("gemma4", ("E2B and E4B", "per-layer inputs")),
        ("phi4mm", ("refs/pr/70",)),
        ("whisper", ("'whisper'", *(family.name for family in FAMILIES))),
        (None, ("no family known",)),
        (["qwen2_audio"], ("no family known",)),
    ],
)
def test_a_model_that_cannot_be_studied_is_refused_in_one_line_that_says_why(tmp_path, refused, model_type, words):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with refused(*words):
        load(tmp_path)


def test_each_family_is_told_by_its_config(made):
    for name in NAMES:
        assert family_of(json.loads((made(name).tiny.folder / "config.json").read_text())).name == name
    assert {family.name for family in FAMILIES} == {"OpenS2S", *NAMES}


def test_the_hub_gives_phi4_in_the_layout_of_transformers_with_its_lora(made, monkeypatch):
    folder, asked = made("Phi-4-multimodal").tiny.folder, []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda hub_id, **how: asked.append((hub_id, how)) or str(folder)
    )
    assert checkpoint_folder("microsoft/Phi-4-multimodal-instruct") == folder
    assert {how["revision"] for _, how in asked} == {"refs/pr/70"}
    assert asked[1][1]["allow_patterns"] == ["model.safetensors", "speech-lora/adapter_model.safetensors"]


# --- features


@pytest.mark.parametrize("name", NAMES)
def test_features_of_another_kind_are_refused(copy, refused, name):
    folder = copy(name)
    path = folder / FEATURES
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling_rate": 8000}))
    with refused(FEATURES, "8000"):
        load(folder)
    path.unlink()
    with refused(FEATURES, "missing"):
        load(folder)


def test_features_may_stand_in_the_processors_file(copy):
    folder = copy("Audio Flamingo 3")
    settings = json.loads((folder / FEATURES).read_text())
    (folder / FEATURES).unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    assert load(folder).max_samples == 600 * 16_000
