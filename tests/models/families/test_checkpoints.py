"""A checkpoint of any family is loaded whole or refused in one line, from its own files alone."""

import json
import re
import shutil
from fnmatch import fnmatch

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models.families.builders import BUILDERS
from tests.models.families.conftest import load
from voicepatch.models.checkpoint import checkpoint_hash
from voicepatch.models.families import family_of
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
    embeds = mine.llm.get_input_embeddings()(ids)[None]
    text = getattr(theirs.model, "language_model", theirs.model)
    if name in ("Granite Speech", "Phi-4-multimodal"):  # without peft, transformers leaves the LoRA out
        assert torch.equal(text.get_input_embeddings().weight, mine.llm.get_input_embeddings().weight)
    else:
        expected = theirs.lm_head(text(inputs_embeds=embeds, use_cache=False).last_hidden_state)
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


# --- LoRA


@pytest.mark.parametrize(("name", "where"), [("Granite Speech", "."), ("Phi-4-multimodal", "speech-lora")])
def test_a_lora_that_is_missing_odd_or_broken_is_refused(copy, refused, name, where):
    folder = copy(name)
    config, weights = folder / where / "adapter_config.json", folder / where / "adapter_model.safetensors"
    settings, tensors = json.loads(config.read_text()), load_file(weights)
    config.write_text(json.dumps(settings | {"use_dora": True}))
    with refused("adapter_config.json", "use_dora", "merge"):
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


# What peft 0.21.2 writes for LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"]), the values left out
# that switch a feature off: they are null, false or empty.
PEFT = {
    "bias": "none", "inference_mode": True, "init_lora_weights": True, "lora_alpha": 12, "lora_dropout": 0.1,
    "megatron_core": "megatron.core", "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 4,
    "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "revision": "main",
}  # fmt: skip
OFF = {
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "auto_mapping", "base_model_name_or_path")),
    **dict.fromkeys(("corda_config", "eva_config", "exclude_modules", "kasa_config", "layer_replication")),
    **dict.fromkeys(("layers_pattern", "layers_to_transform", "lora_ga_config", "megatron_config", "modules_to_save")),
    **dict.fromkeys(("monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora")),
    **{"alpha_pattern": {}, "rank_pattern": {}, "loftq_config": {}, "velora_config": None},
    **dict.fromkeys(("ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora"), False),
}
OTHER_KINDS = [
    *({"init_lora_weights": kind} for kind in ("pissa", "pissa_niter_4", "olora", "loftq", "corda", "eva", "lora_ga")),
    *({key: True} for key in ("use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "ensure_weight_tying")),
    *({key: {"q_proj": 2}} for key in ("rank_pattern", "alpha_pattern", "loftq_config", "velora_config")),
    *({key: ["x"]} for key in ("modules_to_save", "target_parameters", "alora_invocation_tokens")),
    *({"layer_replication": [[0, 2], [1, 3]]}, {"trainable_token_indices": [7]}, {"use_bdlora": {"nblocks": 2}}),
    *({"bias": "all"}, {"peft_type": "IA3"}, {"a_key_of_a_later_version": 1}, {"r": 0}, {"r": 8.5}),
    *({"use_rslora": 3}, {"lora_alpha": float("inf")}),
]


@pytest.mark.parametrize("odd", OTHER_KINDS, ids=lambda odd: "-".join(f"{key}-{odd[key]}" for key in odd)[:60])
def test_a_lora_of_another_kind_is_refused_by_the_key_that_makes_it_so(copy, refused, odd):
    folder = copy("Granite Speech")
    (folder / "adapter_config.json").write_text(json.dumps(PEFT | OFF))
    load(folder)
    (folder / "adapter_config.json").write_text(json.dumps(PEFT | OFF | odd))
    with refused("adapter_config.json", next(iter(odd)), "merge it with peft"):
        load(folder)


@pytest.mark.parametrize("where", [("Granite Speech", "."), ("Phi-4-multimodal", "speech-lora")])
@pytest.mark.parametrize(("settings", "scale"), [({}, 12 / 4), ({"use_rslora": True}, 12 / 2)])
def test_a_plain_lora_is_merged_with_its_own_scale(copy, where, settings, scale):
    """W + alpha / r · B A; for rsLoRA, alpha / sqrt(r)."""
    folder = copy(where[0])
    (folder / where[1] / "adapter_config.json").write_text(json.dumps(PEFT | OFF | settings))
    halves = load_file(folder / where[1] / "adapter_model.safetensors")
    weights, merged = load_file(folder / "model.safetensors"), load(folder).llm.state_dict()
    down = [key for key in halves if "lora_A" in key]
    assert down
    for key in down:
        tail = "layers." + key.partition("layers.")[2].replace(".lora_A", "")
        base = next(tensor for name, tensor in weights.items() if name.endswith("model." + tail))
        expected = base + scale * halves[key.replace("lora_A", "lora_B")] @ halves[key]
        assert (merged[f"model.{tail}"] - expected).abs().max() < 1e-6
        assert (expected - base).abs().max() > 0.01


def test_two_loras_in_one_file_and_a_rank_of_its_own_are_refused(copy, refused):
    folder = copy("Granite Speech")
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(key for key in tensors if "lora_A" in key)
    save_file(tensors | {first.replace("lora_A", "lora_A.other"): tensors[first].clone()}, weights)
    with refused("more than one LoRA"):
        load(folder)
    cut = {key: tensor[:2] if "lora_A" in key else tensor[:, :2].clone() for key, tensor in tensors.items()}
    save_file(cut, weights)
    with refused("shape", "rank 4"):
        load(folder)


# --- an adapter beside the weights


ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Granite Speech"])
@pytest.mark.parametrize("files", [ADAPTERS[:2], ADAPTERS[:1], ADAPTERS[1:2], (ADAPTERS[0], ADAPTERS[2])])
def test_a_lora_beside_a_checkpoint_is_refused_with_the_way_out(copy, refused, name, files):
    folder = copy(name)
    for file in files:
        (folder / file).write_text("{}")
    for reads in (load, checkpoint_hash):
        with refused(folder / files[0], "merge_and_unload()", "save_pretrained()"):
            reads(folder)


def test_a_lora_in_a_folder_below_is_not_looked_for_as_in_transformers(copy, made):
    folder = copy("Qwen2-Audio")
    (folder / "checkpoint-100").mkdir()
    for file in ADAPTERS:
        (folder / "checkpoint-100" / file).write_text("{}")
    expected = made("Qwen2-Audio").speech.llm.state_dict()
    assert all(torch.equal(expected[key], tensor) for key, tensor in load(folder).llm.state_dict().items())


def test_a_lora_without_its_base_model_says_that_it_is_one(tmp_path, refused):
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT))
    with refused(tmp_path / "adapter_config.json", "merge_and_unload()"):
        load(tmp_path)


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
        ("whisper", ("'whisper'", *(family.name for family in declared_families()))),
        (None, ("no known family",)),
        (["qwen2_audio"], ("no known family",)),
    ],
)
def test_a_model_that_cannot_be_studied_is_refused_in_one_line_that_says_why(tmp_path, refused, model_type, words):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with refused(*words):
        load(tmp_path)


def test_each_family_is_told_by_its_config(made):
    for name in NAMES:
        assert family_of(json.loads((made(name).tiny.folder / "config.json").read_text())).name == name
    assert {family.name for family in declared_families()} == {"OpenS2S", *NAMES}


@pytest.fixture
def hub(monkeypatch):
    """A function that puts a folder on the hub; gives the patterns of what is fetched, and the revision."""

    def put(folder, kept):
        asked = []

        def snapshot_download(hub_id, allow_patterns, ignore_patterns=(), revision=None):
            asked.append((allow_patterns, revision))
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                name = str(path.relative_to(folder))
                if any(fnmatch(name, pattern) for pattern in allow_patterns):
                    (kept / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, kept / name)
            return str(kept)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return asked

    return put


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


def test_no_weights_are_fetched_where_a_lora_lies_beside_them(copy, hub, refused, tmp_path):
    folder = copy("Qwen2-Audio")
    (folder / "adapter_config.json").write_text("{}")
    asked = hub(folder, tmp_path / "kept")
    with refused("adapter_config.json", "merge_and_unload()"):
        checkpoint_folder("someone/adapted")
    assert len(asked) == 1


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
