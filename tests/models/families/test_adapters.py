"""An adapter is merged into its base exactly, wherever it lies and whatever names it was trained under, or refused."""

import copy as copying
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.families.builders import BUILDERS, granite_speech
from tests.models.families.conftest import load, sound
from tests.models.families.lora import FILES, OFF, PEFT, write_adapter
from tests.small import small_model
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE
from voicepatch.models import adapters
from voicepatch.models.adapter_folder import find_checkpoint
from voicepatch.models.checkpoint import adapter_hash
from voicepatch.models.speech_lm import join, load_speech_lm

OWN = [("Granite Speech", "."), ("Phi-4-multimodal", "speech-lora")]  # part of the checkpoint


@pytest.fixture(scope="module")
def tiny(made, tmp_path_factory):
    """A function that gives a family's checkpoint; of Granite Speech, one that has no adapter of its own."""
    cache = {}

    def make(name):
        if name != "Granite Speech":
            return made(name).tiny
        if name not in cache:
            with torch.inference_mode(False):
                cache[name] = granite_speech(tmp_path_factory.mktemp("granite"), lora=False)
        return cache[name]

    return make


def named_as(way, tiny):
    """What `write_adapter` takes: names in the class, in the checkpoint's file, or in the decoder alone."""
    if way == "class":
        return str
    if way == "decoder":
        return lambda name: f"model.{name.partition('language_model.')[2]}" if "language_model." in name else None
    stored, modules = load_file(tiny.folder / "model.safetensors"), dict(tiny.outer.named_modules())

    def name_in_file(name):
        weight = modules[name].weight
        same = [key for key, value in stored.items() if value.shape == weight.shape and torch.equal(value, weight)]
        return same[0].removesuffix(".weight")

    return name_in_file


def agrees(tiny, outer, speech):
    """Whether a loaded model gives the logits of an outer model, and others than the base."""
    waveform = sound(0.9, seed=2)
    clip = join(speech, speech.encode(speech.features(waveform)))
    logits = speech.llm(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[0, -1]
    expected, base = copying.copy(tiny), tiny.logits(clip, waveform)
    expected.outer = outer
    difference = (logits - expected.logits(clip, waveform)).abs().max()
    return difference < 1e-5 * max(1, base.abs().max()) and (logits - base).abs().max() > 0.01


# --- where an adapter lies, and its names


ADDED = [name for name in BUILDERS if name != "Phi-4-multimodal"]


@pytest.mark.parametrize("way", ["class", "file", "decoder"])
@pytest.mark.parametrize("name", ADDED)
def test_an_adapter_alone_is_merged_into_its_base_under_the_names_it_was_trained_with(tiny, tmp_path, name, way):
    made = tiny(name)
    outer = write_adapter(tmp_path / "lora", made.outer, named_as(way, made), base_model_name_or_path=str(made.folder))
    found = find_checkpoint(tmp_path / "lora")
    assert found.folder == made.folder and found.adapter == tmp_path / "lora"
    assert agrees(made, outer, load_speech_lm(found.folder, "cpu", "float32", adapter=found.adapter))


@pytest.mark.parametrize("name", ADDED)
def test_an_adapter_beside_its_base_is_merged(tiny, tmp_path, name):
    made = tiny(name)
    folder = shutil.copytree(made.folder, tmp_path / "both")
    assert agrees(made, write_adapter(folder, made.outer, str, use_rslora=True), load(folder))


def test_an_adapter_of_opens2s_is_merged_and_recorded(tmp_path):
    base = load_subject(small_model(), device="cpu", dtype="float32")
    outer = write_adapter(tmp_path / "lora", base.model.model, str, base_model_name_or_path=str(small_model()))
    subject = load_subject(tmp_path / "lora", device="cpu", dtype="float32")
    merged, before = subject.model.model.state_dict(), base.model.model.state_dict()
    changed = [key for key, value in outer.state_dict().items() if not torch.equal(value, before[key])]
    assert {key.partition(".")[0] for key in changed} == {"audio_encoder_model", "llm_model"}
    assert all((merged[key] - value).abs().max() < 1e-6 for key, value in outer.state_dict().items())
    assert subject.adapter == {
        "sha256": adapter_hash(tmp_path / "lora"), "base": small_model().name, "base_sha256": base.sha256
    }  # fmt: skip
    assert subject.name == "lora" and subject.sha256 not in (base.sha256, subject.adapter["sha256"])
    write_adapter(tmp_path / "lora", base.model.model, str, base_model_name_or_path=str(small_model()), use_rslora=True)
    other = load_subject(tmp_path / "lora", device="cpu", dtype="float32")
    assert other.sha256 != subject.sha256 and other.adapter["sha256"] != subject.adapter["sha256"]


@pytest.mark.parametrize("named", ["base", "../base", "here"])
def test_a_base_may_be_named_from_the_working_directory_and_from_the_adapter(tiny, tmp_path, monkeypatch, named):
    made = tiny("Voxtral")
    shutil.copytree(made.folder, tmp_path / "base")
    shutil.copytree(made.folder, tmp_path / "lora" / "here")
    write_adapter(tmp_path / "lora", made.outer, str, base_model_name_or_path=named)
    monkeypatch.chdir(tmp_path)
    found = find_checkpoint("lora")
    assert found.folder.resolve() == (tmp_path / ("lora/here" if named == "here" else "base"))
    assert find_checkpoint("lora", str(made.folder)).folder == made.folder


def test_a_base_that_is_missing_is_named_with_the_option_that_gives_it(tiny, tmp_path, refused):
    made = tiny("Voxtral")
    for named in ("no/such/folder", "./gone", None, 7, ""):
        write_adapter(tmp_path / "lora", made.outer, str, base_model_name_or_path=named)
        with refused("--base"):
            find_checkpoint(tmp_path / "lora")
    with refused("--base gone", "no such folder"):
        find_checkpoint(tmp_path / "lora", "gone")
    with refused(tmp_path / "lora", "is no base model but an adapter"):
        find_checkpoint(tmp_path / "lora", str(tmp_path / "lora"))
    with refused("--base x", "leave --base out", status=BAD_USAGE):
        find_checkpoint(made.folder, "x")


def test_an_adapter_of_another_base_is_refused(tiny, tmp_path, refused):
    write_adapter(tmp_path / "lora", tiny("Qwen2.5-Omni").outer, str, base_model_name_or_path="its/base")
    weights = tmp_path / "lora" / FILES[1]
    with refused(weights, "has no module for", "its/base", "--base"):
        load_speech_lm(tiny("Granite Speech").folder, "cpu", adapter=tmp_path / "lora")
    tensors = load_file(weights)
    key = next(key for key in tensors if "language_model" in key and "lora_A" in key)
    save_file(tensors | {key: torch.zeros(4, 32)}, weights)
    with refused(weights, "shape", "rank 4"):
        load_speech_lm(tiny("Qwen2.5-Omni").folder, "cpu", adapter=tmp_path / "lora")


def test_two_adapters_of_one_model_are_refused(made, tmp_path, refused):
    for name, _ in OWN:
        write_adapter(tmp_path / "lora", made(name).tiny.outer, str)
        with refused("lora", "is an adapter, but", "merge_and_unload()"):
            load_speech_lm(made(name).tiny.folder, "cpu", adapter=tmp_path / "lora")


@pytest.mark.parametrize("files", [FILES[:1], FILES[1:], (FILES[0], "adapter_model.bin"), ("adapter_model.bin",)])
def test_a_file_of_an_adapter_that_is_missing_is_named(tiny, tmp_path, refused, files):
    folder = shutil.copytree(tiny("Qwen2-Audio").folder, tmp_path / "both")
    for file in files:
        (folder / file).write_text("{}")
    missing = FILES[1] if FILES[0] in files else FILES[0]
    with refused(folder / missing, "missing", "pickled", "safetensors"):
        load(folder)


def test_an_adapter_in_a_folder_below_is_not_looked_for_as_in_transformers(copy, made):
    folder = copy("Qwen2-Audio")
    (folder / "checkpoint-100").mkdir()
    for file in FILES:
        (folder / "checkpoint-100" / file).write_text("{}")
    expected = made("Qwen2-Audio").speech.llm.state_dict()
    assert all(torch.equal(expected[key], tensor) for key, tensor in load(folder).llm.state_dict().items())


def test_random_weights_have_no_adapter(tiny, tmp_path):
    made = tiny("Qwen2-Audio")
    write_adapter(tmp_path / "lora", made.outer, str, base_model_name_or_path=str(made.folder))
    weights = [
        load_speech_lm(made.folder, "cpu", "float32", random_weights=3, adapter=adapter).llm.state_dict()
        for adapter in (None, tmp_path / "lora")
    ]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_files_of_the_tokenizer_that_differ_from_those_of_the_base_are_a_warning(tmp_path):
    base = load_subject(small_model(), device="cpu").model.model
    write_adapter(tmp_path / "lora", base, str, base_model_name_or_path=str(small_model()))
    shutil.copy(small_model() / "tokenizer.json", tmp_path / "lora")
    assert load_subject(tmp_path / "lora", device="cpu").warnings == ()
    (tmp_path / "lora" / "chat_template.jinja").write_text("x")
    (warning,) = load_subject(tmp_path / "lora", device="cpu").warnings
    assert warning.startswith("chat_template.jinja in the adapter's folder")


# --- on the hub


def test_of_an_adapter_on_the_hub_its_two_files_are_fetched_and_its_base(tiny, hub, tmp_path):
    made = tiny("Voxtral")
    write_adapter(tmp_path / "there", made.outer, str, base_model_name_or_path=str(made.folder))
    asked = hub(tmp_path / "there", tmp_path / "kept")
    found = find_checkpoint("someone/lora")
    assert found.adapter == tmp_path / "kept" and found.folder == made.folder
    assert {path.name for path in (tmp_path / "kept").iterdir()} == set(FILES) and len(asked) == 2


def test_an_adapter_beside_a_checkpoint_on_the_hub_is_fetched_with_it(tiny, hub, tmp_path):
    made = tiny("Qwen2-Audio")
    folder = shutil.copytree(made.folder, tmp_path / "both")
    outer = write_adapter(folder, made.outer, str)
    hub(folder, tmp_path / "kept")
    assert agrees(made, outer, load(find_checkpoint("someone/both").folder))


# --- the adapter of a family


@pytest.mark.parametrize(("name", "where"), OWN)
def test_an_adapter_of_the_family_that_is_missing_or_broken_is_refused(copy, refused, name, where):
    folder = copy(name)
    weights = folder / where / FILES[1]
    tensors = load_file(weights)
    first = next(key for key in tensors if "lora_A" in key)
    for spoiled, word in (
        ({first: torch.zeros(4, 3)}, "shape"),
        ({first: tensors[first] * float("nan")}, "NaN"),
        ({first: tensors[first].int()}, "no floats"),
        ({"base_model.model.layers.99.x.lora_A.weight": tensors[first].clone()}, "layers.99.x, which the base has no"),
        ({first.replace("lora_A", "lora_A.other"): tensors[first].clone()}, "more than one LoRA"),
    ):
        save_file(tensors | spoiled, weights)
        with refused(FILES[1], word):
            load(folder)
    save_file({key: value[:2] if "lora_A" in key else value[:, :2].clone() for key, value in tensors.items()}, weights)
    with refused("shape", "rank 4"):
        load(folder)
    weights.unlink()
    with refused(FILES[1], "missing"):
        load(folder)


@pytest.mark.parametrize("where", OWN)
@pytest.mark.parametrize(("settings", "scale"), [({}, 12 / 4), ({"use_rslora": True}, 12 / 2)])
def test_a_plain_lora_of_the_family_is_merged_with_its_own_scale(copy, where, settings, scale):
    """W + alpha / r · B A; for rsLoRA, alpha / sqrt(r)."""
    folder = copy(where[0])
    (folder / where[1] / FILES[0]).write_text(json.dumps(PEFT | OFF | settings))
    halves = load_file(folder / where[1] / FILES[1])
    weights, merged = load_file(folder / "model.safetensors"), load(folder).llm.state_dict()
    down = [key for key in halves if "lora_A" in key]
    assert down
    for key in down:
        tail = "layers." + key.partition("layers.")[2].replace(".lora_A", "")
        base = next(tensor for name, tensor in weights.items() if name.endswith("model." + tail))
        expected = base + scale * halves[key.replace("lora_A", "lora_B")] @ halves[key]
        assert (merged[f"model.{tail}"] - expected).abs().max() < 1e-6
        assert (expected - base).abs().max() > 0.01


# --- kinds of adapter

WITH_PEFT = [
    *({"init_lora_weights": kind} for kind in ("pissa", "pissa_niter_4", "olora")),
    *({key: True} for key in ("use_dora", "lora_bias")),
    *({key: {"q_proj": 2}} for key in ("rank_pattern", "alpha_pattern")),
    *({key: ["x"]} for key in ("modules_to_save", "target_parameters")),
    {"bias": "all"},
]
REFUSED = [
    *({"init_lora_weights": kind} for kind in ("loftq", "corda", "eva", "lora_ga", "pissa_niter_x")),
    *({key: True} for key in ("use_qalora", "fan_in_fan_out", "ensure_weight_tying")),
    *({key: {"q_proj": 2}} for key in ("loftq_config", "velora_config", "megatron_config")),
    *({"layer_replication": [[0, 2], [1, 3]]}, {"trainable_token_indices": [7]}, {"use_bdlora": {"nblocks": 2}}),
    *({"alora_invocation_tokens": ["x"]}, {"peft_type": "IA3"}, {"peft_type": None}, {"a_key_of_a_later_version": 1}),
    *({"r": 0}, {"r": 8.5}, {"use_rslora": 3}, {"lora_alpha": float("inf")}, {"use_dora": "yes"}),
]


def named(odd):
    return "-".join(f"{key}-{odd[key]}" for key in odd)[:60]


@pytest.mark.parametrize("odd", REFUSED, ids=named)
def test_an_adapter_of_another_kind_is_refused_by_the_key_that_makes_it_so(copy, refused, odd):
    folder = copy("Granite Speech")
    (folder / FILES[0]).write_text(json.dumps(PEFT | OFF | odd))
    with refused(FILES[0], next(iter(odd)), "merge it with peft"):
        load(folder)


@pytest.mark.parametrize("odd", WITH_PEFT, ids=named)
def test_without_peft_an_adapter_that_needs_it_is_refused_with_the_way_to_install_it(copy, refused, monkeypatch, odd):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    folder = copy("Granite Speech")
    (folder / FILES[0]).write_text(json.dumps(PEFT | OFF | odd))
    with refused(FILES[0], next(iter(odd)), "needs peft", "requirements-peft.txt"):
        load(folder)


KINDS = {
    "plain": {},
    "dora": {"use_dora": True},
    "modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 5}},
    "embeddings": {"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
    "bias": {"bias": "lora_only", "target_modules": ["q_proj", "fc1", "linear"]},
    "lora_bias": {"lora_bias": True, "target_modules": ["out_proj", "out_conv", "up_conv"]},
    "regex": {
        "target_modules": r".*language_model.*\.(q_proj|o_proj)",
        "use_dora": True,
        "layers_to_transform": None,
    },
}


@pytest.mark.peft
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ADDED for kind in list(KINDS)[:3]),
        *((name, kind) for name in ("Qwen2-Audio", "Granite Speech") for kind in list(KINDS)[3:]),
    ],
)
def test_the_logits_are_those_of_peft(tiny, tmp_path, name, kind):
    from peft import LoraConfig, get_peft_model

    made, more = tiny(name), {"target_modules": ["q_proj", "v_proj"]} | KINDS[kind]
    with torch.inference_mode(False):
        generator = torch.manual_seed(1)
        model = get_peft_model(copying.deepcopy(made.outer), LoraConfig(r=4, lora_alpha=12, **more))
        for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
        model.save_pretrained(tmp_path / "lora")
    model.eval()
    assert agrees(
        made, model.base_model.model, load_speech_lm(made.folder, "cpu", "float32", adapter=tmp_path / "lora")
    )


@pytest.mark.peft
def test_an_adapter_that_does_not_fit_its_settings_is_refused(tiny, tmp_path, refused):
    made = tiny("Qwen2-Audio")
    write_adapter(tmp_path, made.outer, str, use_dora=True)
    with refused(FILES[1], "lora_magnitude_vector", "does not fit use_dora"):
        load_speech_lm(made.folder, "cpu", adapter=tmp_path)
    write_adapter(tmp_path, made.outer, str, rank_pattern={"q_proj": 2})
    with refused(tmp_path, "peft cannot merge it", "size mismatch"):
        load_speech_lm(made.folder, "cpu", adapter=tmp_path)
