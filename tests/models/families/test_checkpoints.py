"""A checkpoint of any family is loaded whole or refused in one line, from its own files alone."""

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.models.families.builders import BUILDERS
from tests.models.families.conftest import load
from voicepatch.models.checkpoint import checkpoint_hash
from voicepatch.models.families import REFUSED, family_of
from voicepatch.models.family import declared_families
from voicepatch.models.folder import checkpoint_folder
from voicepatch.models.speech_lm import join

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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"audio_config": None}, ("audio_config", "cannot hear")),
        ({"text_config": {"num_kv_shared_layers": 1}}, ("num_kv_shared_layers", "no Gemma 4 12B")),
        ({"text_config": {"use_bidirectional_attention": "all"}}, ("use_bidirectional_attention", "no Gemma 4 12B")),
    ],
)
def test_what_gemma_4_12b_cannot_have_is_refused_before_weights_are_read(copy, refused, change, words):
    folder = copy("Gemma 4 12B")
    config = json.loads((folder / "config.json").read_text())
    change = {key: value and config[key] | value for key, value in change.items()}
    change_config(folder, **change)
    with refused("config.json", *words):
        load(folder)


def test_an_expert_that_is_missing_is_refused(copy, refused):
    folder = copy("Qwen3-Omni")
    change_tensors(folder, lambda tensors: tensors.pop(next(key for key in tensors if "experts.3.down_proj" in key)))
    with refused("layers.", "experts"):
        load(folder)


@pytest.mark.parametrize("name", ["Qwen2-Audio", "Voxtral"])
def test_pickles_are_refused(copy, refused, name):
    folder = copy(name)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with refused("no model.safetensors", "pickled"):
        load(folder)


# What each library writes: its name in config.json, and for a linear layer's weight, tensors of these names and types.
QUANTISED = {
    "bitsandbytes": {"weight": torch.uint8, "weight.absmax": torch.float32, "weight.quant_map": torch.float32},
    "bitsandbytes 8 bit": {"weight": torch.int8, "SCB": torch.float32},
    "gptq": {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16, "g_idx": torch.int32},
    "awq": {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16},
    "fp8": {"weight": torch.float8_e4m3fn, "weight_scale_inv": torch.float32},
    "compressed-tensors": {"weight_packed": torch.int32, "weight_scale": torch.bfloat16, "weight_shape": torch.int64},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_weights_are_refused_with_their_method_or_a_tensor(copy, refused, method):
    folder = copy("Qwen2-Audio")
    before = (folder / "config.json").read_text()
    change_config(folder, quantization_config={"quant_method": method})
    with refused("quantization_config", method, "made from"):
        load(folder)
    (folder / "config.json").write_text(before)  # older ones say it in a file of their own
    change_tensors(folder, lambda tensors: quantise(tensors, QUANTISED[method]))
    with refused("model.safetensors", "down_proj", "float or bfloat16"):
        load(folder)


def quantise(tensors, parts):
    name = next(name for name in tensors if "layers.1.mlp.down_proj" in name)
    del tensors[name]
    tensors |= {name.replace("weight", part): torch.zeros(4, 4).to(dtype) for part, dtype in parts.items()}


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
    before, folder = transformers.logging.get_verbosity(), made("Granite Speech").tiny.folder
    capsys.readouterr()
    load(folder)
    assert transformers.logging.get_verbosity() == before and capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_file_goes_before_an_index_as_in_transformers(copy, made, name):
    """`save_pretrained` twice into one folder leaves both: stale shards, and an index that names them."""
    folder, tiny = copy(name), made(name).tiny
    stale = {key: tensor + 1 for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(stale, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(stale, "model-00001-of-00001.safetensors")}))
    theirs = type(tiny.outer).from_pretrained(folder, dtype=torch.float32).eval()
    mine, ids = load(folder), torch.arange(5, 25)
    embeds = mine.embed(ids.tolist())[None]
    if name in ("Granite Speech", "Phi-4-multimodal"):  # without peft, transformers leaves the LoRA out
        weight = theirs.get_input_embeddings().weight
        assert torch.equal(weight, mine.llm.get_input_embeddings().weight)
    else:
        expected = theirs(input_ids=ids[None], use_cache=False).logits / tiny.scale
        assert (mine.llm(inputs_embeds=embeds).logits - expected).abs().max() < 1e-5
    before = checkpoint_hash(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()
    index.write_text("no longer read")
    assert checkpoint_hash(folder) == before == checkpoint_hash(tiny.folder)
    assert torch.equal(load(folder).llm(inputs_embeds=embeds).logits, mine.llm(inputs_embeds=embeds).logits)


def test_weights_under_another_name_are_refused(copy, refused):
    folder = copy("Qwen2-Audio")
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    change_config(folder, transformers_weights="other.safetensors")
    with refused("transformers_weights", "'other.safetensors'", "rename"):
        load(folder)


def with_implementation(part, value):
    if not isinstance(part, dict):
        return part
    keys = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
    own = dict.fromkeys(keys, value) if "model_type" in part else {}
    return {key: with_implementation(inner, value) for key, inner in part.items()} | own


@pytest.mark.parametrize("value", ["flash_attention_2", "someone/kernel", "flex_attention", {"": "eager"}, 7])
def test_how_attention_is_computed_is_not_the_checkpoints_to_say(copy, made, value):
    for name in ("Qwen2-Audio", "Qwen3-Omni"):
        folder, speech = copy(name), made(name).speech
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(with_implementation(config, value)))
        found = load(folder)
        assert found.llm.config._attn_implementation == speech.llm.config._attn_implementation == "sdpa"
        frames = [model.encode(model.features(made(name).sounds[0])) for model in (found, speech)]
        assert torch.equal(*frames)
        shutil.rmtree(folder)


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
        ("qwen3_asr", ("'qwen3_asr'", "answers no question")),
        ("whisper", ("cross-attention",)),
        ("csm", ("generates sound",)),
        ("muse_spark", ("822 billion",)),
        ("llama", ("'llama'", *(family.name for family in declared_families()))),
        (None, ("no known family",)),
        (["qwen2_audio"], ("no known family",)),
    ],
)
def test_a_model_that_cannot_be_studied_is_refused_in_one_line_that_says_why(tmp_path, refused, model_type, words):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with refused(*words):
        load(tmp_path)


def reads_sound(config):
    names = (*config.sub_configs_defaults, *config.__dataclass_fields__)
    return any(word in name for word in ("audio", "speech", "acoustic") for name in names)


def test_every_class_of_transformers_that_reads_sound_and_writes_is_a_family_or_is_refused_with_a_reason():
    found = set(modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES)
    for mapping in ("MULTIMODAL_LM", "SEQ_TO_SEQ_CAUSAL_LM"):
        names = set(getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")) & set(CONFIG_MAPPING)
        found |= {name for name in names if reads_sound(CONFIG_MAPPING[name])}
    known = {model_type for family in declared_families() for model_type in family.model_types}
    assert {"qwen2_audio", "gemma4_unified", "dots3_note", "whisper"} <= found
    assert found <= known | set(REFUSED) and not known & set(REFUSED)


def test_each_family_is_told_by_its_config(made):
    for name in NAMES:
        assert family_of(json.loads((made(name).tiny.folder / "config.json").read_text())).name == name
    assert {family.name for family in declared_families()} == {"OpenS2S", *NAMES}


def test_the_hub_gives_phi4_in_the_layout_of_transformers_with_its_lora(made, hub, tmp_path):
    asked = hub(made("Phi-4-multimodal").tiny.folder, tmp_path)
    assert checkpoint_folder("microsoft/Phi-4-multimodal-instruct") == tmp_path
    assert {revision for _, revision in asked} == {"refs/pr/70"}
    assert asked[1][0] == ["model.safetensors", "speech-lora/adapter_model.safetensors"]
    load(tmp_path)


def test_of_a_hub_id_shards_are_fetched_where_there_is_no_whole_file(copy, hub, tmp_path):
    folder = copy("Qwen2-Audio")
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(whole, "part.safetensors")})
    )
    shutil.copy(folder / "model.safetensors", folder / "part.safetensors")
    hub(folder, tmp_path / "both")
    checkpoint_folder("someone/both")
    assert (tmp_path / "both" / "model.safetensors").exists() and not (tmp_path / "both" / "part.safetensors").exists()
    (folder / "model.safetensors").unlink()
    hub(folder, tmp_path / "shards")
    assert len(load(checkpoint_folder("someone/shards")).llm.state_dict()) > 10


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
