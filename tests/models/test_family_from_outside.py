"""A family from outside: declared in a file of the user's, or a model that is passed to `load_subject`."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from cli import cli
from pairs import build_pairs
from tests.models.families.lora import write_adapter
from tests.models.toy_speech import CONFIG, write_toy
from voicepatch import merge_adapter
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE, CHECK_FAILED, UserError
from voicepatch.models.families import family_of
from voicepatch.models.family import families, family
from voicepatch.registry.catalogue import add_plugin, load_intervention, reset_plugins
from voicepatch.registry.plugins import import_file
from voicepatch.runs.checks import self_patch_check
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.model_contract import model_check
from voicepatch.runs.pair_loop import run_table
from voicepatch.runs.preflight import run_checks
from voicepatch.store.directory import RunDir
from voicepatch.types.task import Task, default_task


@pytest.fixture(autouse=True)
def with_gradients():
    """Models are made and run as outside of tests."""
    with torch.inference_mode(False):
        yield


@pytest.fixture
def toy(tmp_path):
    """The plugin `toy.py`, imported, and its checkpoint."""
    plugin, checkpoint = write_toy(tmp_path)
    add_plugin(plugin)
    yield import_file(plugin), checkpoint
    reset_plugins()


@pytest.fixture
def forgotten():
    """What a test declares in this file is forgotten after it."""
    known = dict(families._found)
    yield
    families._found = known


def test_the_familys_checkpoint_is_recognised_and_measured(toy, demo_data):
    _, checkpoint = toy
    subject = load_subject(checkpoint, device="cpu")
    assert (subject.family.name, subject.family.frames_per_second) == ("Toy", 25)
    identity = LocalExecutor(subject).identity()
    assert identity["model"] == {
        "name": "toy",
        "sha256": subject.sha256,
        "n_layers": 4,
        "hidden_size": 32,
        "family": "Toy",
        "frames_per_second": 25,
    }
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=2, seed=42).pairs
    table = run_table(subject, load_intervention("patch"), pairs)
    assert len(table) == 2 * 4
    last = table[table["layer"] == 3]
    assert (last["delta_logit_target"] == 0).all()  # the last layer changes nothing behind the span
    assert (table[table["layer"] == 0]["delta_logit_target"] != 0).all()


def test_random_weights_need_a_parameter_of_load(toy, forgotten):
    module, checkpoint = toy
    with pytest.raises(
        UserError, match=r"--random-weights: .*toy.py:\d+: load has no parameter random_weights"
    ) as error:
        load_subject(checkpoint, device="cpu", random_weights=3)
    assert error.value.status == BAD_USAGE

    @family(model_type="other_toy")
    def load(folder, device, dtype, random_weights):
        """Other: takes the seed."""
        torch.manual_seed(random_weights)
        return module.Toy(CONFIG)

    (checkpoint / "config.json").write_text('{"model_type": "other_toy"}')
    one, again = (load_subject(checkpoint, device="cpu", random_weights=3) for _ in range(2))
    assert one.sha256 == again.sha256 and one.random_weights == 3


def test_an_adapter_needs_a_parameter_of_load(toy, forgotten, tmp_path):
    module, checkpoint = toy
    outer = write_adapter(tmp_path / "lora", module.Toy(CONFIG).llm, str, base_model_name_or_path=str(checkpoint))
    with pytest.raises(UserError, match=r"lora: .*toy.py:\d+: load has no parameter adapter.*merge_and_unload"):
        load_subject(tmp_path / "lora", device="cpu")

    @family(model_type="other_toy")
    def load(folder, device, dtype, adapter):
        """Other: merges an adapter of its decoder."""
        model = module.Toy(CONFIG)
        if adapter is not None:
            merge_adapter(adapter, model.llm, model.llm)
        return model

    (checkpoint / "config.json").write_text('{"model_type": "other_toy"}')
    subject, base = load_subject(tmp_path / "lora", device="cpu"), load_subject(checkpoint, device="cpu")
    merged, before = subject.model.llm.state_dict(), base.model.llm.state_dict()
    assert all((merged[name] - value).abs().max() < 1e-6 for name, value in outer.state_dict().items())
    assert any(not torch.equal(merged[name], value) for name, value in before.items())
    assert subject.adapter["base_sha256"] == base.sha256 != subject.sha256


def test_a_model_that_is_loaded_already_is_measured_alike(toy, demo_data):
    module, checkpoint = toy
    loaded, passed = load_subject(checkpoint, device="cpu"), load_subject(model=module.Toy(CONFIG))
    clip = demo_data.clips[0]
    assert torch.equal(loaded.clips.unpatched(clip).logits, passed.clips.unpatched(clip).logits)
    assert passed.name == passed.family.name == "Toy" and passed.family.frames_per_second is None
    assert LocalExecutor(passed).identity()["model"]["frames_per_second"] is None
    assert model_check(passed, demo_data.clips[0])["passed"]
    other = module.Toy(CONFIG)
    other.encoder.weight.data[0, 0] += 1
    assert load_subject(model=other).sha256 != passed.sha256 == load_subject(model=module.Toy(CONFIG)).sha256


def test_every_file_of_the_checkpoint_and_the_code_is_hashed(toy):
    module, checkpoint = toy

    def sha256():
        return load_subject(checkpoint, device="cpu").sha256

    first = sha256()
    (checkpoint / "weights.bin").write_bytes(b"1")
    second = sha256()
    (checkpoint / "weights.bin").write_bytes(b"2")
    third = sha256()
    path = checkpoint.parent / "toy.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    assert len({first, second, third, sha256()}) == 4


def refused(call, *words, status):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.status == status
    assert not [word for word in words if word not in str(error.value)], str(error.value)


def test_what_is_no_model_is_refused_by_its_file(toy, monkeypatch):
    module, checkpoint = toy
    monkeypatch.delattr(module.Toy, "n_audio")
    refused(lambda: load_subject(checkpoint), "toy.py", "n_audio", status=1)
    refused(lambda: load_subject(model=module.Toy(CONFIG)), "toy.py", "n_audio", status=1)
    refused(lambda: load_subject(), "load_subject", status=BAD_USAGE)
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "toy_speech"}))
    refused(lambda: load_subject(checkpoint), "toy.py", "KeyError", "decoder", status=1)


def test_a_declaration_that_cannot_be_used_is_refused_by_its_line(toy, forgotten):
    def load(folder, device, dtype):
        """Qwen2-Audio: another one."""

    def nameless(folder, device, dtype):
        pass

    me = "test_family_from_outside.py"
    refused(lambda: family(model_type="new")(load), me, "Qwen2-Audio", "models/qwen2_audio.py", status=BAD_USAGE)
    refused(lambda: family(model_type="new", hears="30 s")(load), me, "hears=", status=BAD_USAGE)
    refused(lambda: family()(load), me, "recognises=", status=BAD_USAGE)
    refused(lambda: family(model_type="new")(nameless), me, "docstring", status=BAD_USAGE)


def test_of_families_that_recognise_one_config_none_is_used(toy, forgotten):
    @family(model_type="toy_speech", recognises=lambda config: "llm_config" in config)
    def load(folder, device, dtype):
        """Other: another one."""

    me = "test_family_from_outside.py"
    refused(lambda: family_of({"model_type": "toy_speech"}), "Toy", "toy.py", "Other", me, status=1)
    refused(lambda: family_of({"llm_config": {}}), "OpenS2S", "models/opens2s_io.py", "Other", me, status=1)


def test_a_family_may_be_declared_in_a_notebook_and_again(forgotten):
    for engines in (("stepwise",), ("sweep",)):

        def load(folder, device, dtype):
            """Mine: a family of a cell."""

        family(model_type="mine", engines=engines)(load)
        assert family_of({"model_type": "mine"}).engines == engines


# --- the contract


def sound(toy):
    """Nothing is broken."""


def reference(toy):
    toy.reference = lambda waveform: torch.ones(128)


def causality(toy):
    """Each block adds a little of what the next position has."""
    for block in toy.llm.model.layers:
        block.register_forward_hook(lambda block, inputs, output: output + 0.1 * output.roll(-1, 1))


def embeddings(toy):
    """A block adds the embeddings once more, past the residual stream."""
    kept = {}

    def keep(module, args, kwargs):
        kept["embeds"] = kwargs["inputs_embeds"].clone()

    toy.llm.model.register_forward_pre_hook(keep, with_kwargs=True)
    toy.llm.model.layers[2].register_forward_hook(lambda block, inputs, output: output + kept["embeds"])


def engine(toy):
    """Positions begin at 0 again behind recorded keys and values."""

    def restart(module, args, kwargs):
        n = kwargs["inputs_embeds"].shape[1]
        return args, kwargs | {"position_ids": torch.arange(n)[None]}

    toy.llm.model.register_forward_pre_hook(restart, with_kwargs=True)


def span(toy):
    """The second of the frames is a token of text."""
    encode = toy.encode
    toy.encode = lambda features: torch.cat([encode(features)[:1], toy.embed([3]), encode(features)[2:]])


def training(toy):
    """The decoder is as it is in training."""
    toy.llm.train()


def vocabulary(toy):
    """The tokenizer has more tokens than the embeddings."""
    toy.prompt = replace(toy.prompt, after=[*toy.prompt.after, 128])


def special_token(toy):
    """The tokenizer of another model writes a special token letter by letter."""
    text = "<|turn|>Listen: <|audio|>" + toy.prompt.text.partition("<sound>")[2] + "<|turn|>"
    toy.prompt = replace(toy.prompt, text=text)


def shape(toy):
    """Frames have a dimension for a batch."""
    encode = toy.encode
    toy.encode = lambda features: encode(features)[None]


def number_type(toy):
    """Frames have another dtype than the decoder."""
    encode = toy.encode
    toy.encode = lambda features: encode(features).double()


def text_vectors(toy):
    """Embeddings of one token too few."""
    embed = toy.embed
    toy.embed = lambda ids: embed(ids)[1:]


def earlier_clips(toy):
    """Frames are centred by a mean over all clips up to now."""
    encode, seen = toy.encode, []

    def centred(features):
        seen.append(encode(features))
        return seen[-1] - torch.cat(seen).mean(0)

    toy.encode = centred


def noise(toy):
    """Frames are drawn."""
    encode = toy.encode
    toy.encode = lambda features: torch.nn.functional.dropout(encode(features), 0.1)


def length(toy):
    """The last frame, which is not full, is counted."""
    toy.n_audio = lambda n_samples: -(-n_samples // 640)


def scaled_logits(toy):
    """The decoder divides what its head gives."""
    forward = toy.llm.forward

    def divided(**kwargs):
        output = forward(**kwargs)
        output.logits = output.logits / 8
        return output

    toy.llm.forward = divided


# The functions of a model are checked before it is used. Each of these errors names where to look.
INTERFACE = {
    training: ("The model is in eval mode", "llm is in training mode"),
    vocabulary: ("The prompt and the labels are tokens of the embeddings", "token 128", "rows 0 to 127"),
    special_token: ("The prompt and the labels are tokens of the embeddings", "<|turn|>", "tokenizer"),
    shape: ("embed and encode give vectors that block 0 reads", "encode gives a tensor of shape [1, ", "[n_audio, 32]"),
    number_type: (
        "embed and encode give vectors that block 0 reads",
        "encode gives torch.float64 on cpu",
        "torch.float32",
    ),
    text_vectors: ("embed and encode give vectors that block 0 reads", "embed gives a tensor of shape"),
    earlier_clips: ("The frames of a clip depend on this clip alone", "differ by", "earlier clips"),
    noise: ("The frames of a clip depend on this clip alone", "frames differ", "dropout"),
    length: ("n_audio gives the number of audio frames", "n_audio", "padded"),
    scaled_logits: ("The output of lm_head is the decoder's logits", "|Δlogit|", "lm_head"),
}


@pytest.mark.parametrize("broken", INTERFACE)
def test_a_function_that_gives_something_else_is_named_with_its_file(toy, demo_data, tmp_path, broken):
    module, _ = toy
    model = module.Toy(CONFIG)
    broken(model)
    subject = load_subject(model=model)
    name, *words = INTERFACE[broken]
    run = RunDir(tmp_path / "run")
    refused(
        lambda: run_checks(subject, demo_data, run, 42, range(4), lambda line: None),
        "toy.py", name, *words, status=CHECK_FAILED,
    )  # fmt: skip
    stored = json.loads((run.path / "sanity_check_model.json").read_text())
    assert [check["name"] for check in stored["checks"] if not check["passed"]] == [name]


@pytest.mark.parametrize("name", ["features", "encode", "embed", "n_audio", "reference"])
def test_an_error_in_a_function_names_its_line(toy, demo_data, tmp_path, name):
    module, _ = toy
    model = module.Toy(CONFIG)
    code = compile(f"\n\n\ndef {name}(given):\n    raise KeyError('mel')", module.__file__, "exec")
    exec(code, namespace := {})
    setattr(model, name, namespace[name])
    subject = load_subject(model=model)
    check = lambda: run_checks(subject, demo_data, RunDir(tmp_path), 42, range(4), lambda line: None)  # noqa: E731
    refused(check, f"toy.py:5: Toy: {name} ends with KeyError: 'mel'", status=1)


@pytest.mark.parametrize("name", ["encode", "convert_ids_to_tokens"])
def test_an_error_in_the_tokenizer_names_its_line(toy, monkeypatch, name):
    module, checkpoint = toy
    code = compile(f"\n\n\ndef {name}(*given):\n    raise KeyError('merges')", module.__file__, "exec")
    exec(code, namespace := {})
    monkeypatch.setattr(module.Toy(CONFIG).tokenizer.__class__, name, namespace[name])
    what = "load" if name == "encode" else "the tokenizer"  # the prompt is tokenised on loading
    refused(lambda: load_subject(checkpoint, device="cpu"), f"toy.py:5: Toy: {what} ends with KeyError", status=1)


CHECKED_BY = {
    reference: "The unpatched readout is that of reference(waveform)",
    causality: "No position depends on a later one",
    embeddings: "Replacing the span at the embeddings gives B's own logits",
    engine: "Engine tail patches as a full forward does",
    span: "The audio frames hold no embedding of a text token",
}


@pytest.mark.parametrize("broken", [sound, *CHECKED_BY])
def test_a_family_that_breaks_one_rule_fails_that_check_alone(toy, demo_data, tmp_path, broken):
    module, _ = toy
    model = module.Toy(CONFIG)
    broken(model)
    # Recorded keys and values are not exact either where a decoder looks ahead or reads the embeddings again.
    how = "stepwise" if broken in (causality, embeddings) else "auto"
    subject = load_subject(model=model, engine=how)
    contract, patched = model_check(subject, demo_data.clips[0]), self_patch_check(subject, demo_data.clips[:2], [0])
    failed = [check["name"] for check in (*contract["checks"], *patched["checks"]) if not check["passed"]]
    assert failed == ([] if broken is sound else [CHECKED_BY[broken]])

    run = RunDir(tmp_path / "run")
    if not failed:
        run_checks(subject, demo_data, run, 42, range(4), lambda line: None)
    else:
        check = lambda: run_checks(subject, demo_data, run, 42, range(4), lambda line: None)  # noqa: E731
        file = "sanity_check_self_patch.json" if broken in (embeddings, engine) else "sanity_check_model.json"
        refused(check, "toy.py", file, status=CHECK_FAILED)


def test_text_in_the_span_is_accepted_where_the_family_says_so(toy, demo_data):
    module, _ = toy
    model = module.Toy(CONFIG)
    span(model)
    model.prompt = module.Prompt(**vars(model.prompt) | {"span": "a separator after the first frame"})
    report = model_check(load_subject(model=model), demo_data.clips[0])
    assert report["passed"] and "a separator after the first frame" in report["checks"][-1]["text"]


def test_the_models_own_reference_is_compared_with(toy, demo_data):
    module, _ = toy
    model = module.Toy(CONFIG)

    def own(waveform):
        frames = model.encode(model.features(waveform))
        text = [model.embed(ids) for ids in (model.prompt.before, model.prompt.after)]
        return model.llm(inputs_embeds=torch.cat([text[0], frames, text[1]])[None]).logits[0, -1]

    model.reference = own
    check = model_check(load_subject(model=model), demo_data.clips[0])["checks"][0]
    assert check["passed"] and check["numbers"]["max_abs_logit_difference"] < 1e-5


def test_auto_takes_the_fastest_engine_that_the_family_declares(toy, forgotten):
    module, checkpoint = toy

    for engines, expected in ((("stepwise", "sweep"), "sweep"), (("stepwise",), "stepwise")):
        families.forget(checkpoint.parent / "toy.py")
        family(model_type="toy_speech", engines=engines)(module.load)
        assert load_subject(checkpoint).engine.name == expected
    assert load_subject(checkpoint, engine="tail").engine.name == "tail"


TWO = Task(name="two", question="Is this happy or sad?", labels=("happy", "sad"))


def test_a_family_that_takes_the_question_is_asked_any_task(toy, tmp_path):
    _, checkpoint = toy
    plugin = tmp_path / "toy.py"
    for old, new in (
        ("QUESTION = default_task().question\n", ""),
        ("def __init__(self, config):", "def __init__(self, config, QUESTION):"),
        ("def load(folder, device, dtype):", "def load(folder, device, dtype, question):"),
        ('["decoder"])', '["decoder"], question)'),
    ):
        text = plugin.read_text(encoding="utf-8")
        assert old in text
        plugin.write_text(text.replace(old, new), encoding="utf-8")
    import_file(plugin)
    subject = load_subject(checkpoint, device="cpu", task=TWO)
    assert subject.model.prompt.text == f"Listen: <sound>{TWO.question}" and not subject.warnings
    assert subject.labels.labels == TWO.labels
    assert default_task().question in load_subject(checkpoint, device="cpu").model.prompt.text


def test_a_family_that_does_not_take_the_question_is_refused_for_another_task(toy):
    module, checkpoint = toy
    refused(lambda: load_subject(checkpoint, task=TWO), "task two", "`question`", status=1)
    refused(lambda: load_subject(model=module.Toy(CONFIG), task=TWO), "task two", status=1)


def test_a_prompt_without_the_default_question_is_a_warning_that_the_run_stores(toy, monkeypatch):
    module, checkpoint = toy
    monkeypatch.setattr(module, "QUESTION", "happy.")
    subject = load_subject(checkpoint, device="cpu")
    assert "does not hold the question of task emotion" in subject.warnings[0]
    assert LocalExecutor(subject).identity()["prompt"]["warnings"] == list(subject.warnings)
    monkeypatch.setattr(module, "QUESTION", TWO.question)
    assert not load_subject(checkpoint, task=TWO).warnings  # it asks the task's question by itself


# --- from the command line


@pytest.fixture
def call(tmp_path):
    """A function that runs a command with the plugin `toy.py`, and gives what it prints."""
    plugin, checkpoint = write_toy(tmp_path)

    def run(*words, status=0):
        reset_plugins()
        result = CliRunner().invoke(cli, [*map(str, words), "--plugin", str(plugin)])
        assert result.exit_code == status, result.output
        return result.output

    run.plugin, run.checkpoint = plugin, checkpoint
    yield run
    reset_plugins()


def test_a_plugins_family_is_listed_checked_and_measured(call, tmp_path):
    listed = call("models")
    assert "Toy: a linear encoder and a small random Qwen3 decoder" in listed and str(call.plugin) in listed
    assert "Qwen2-Audio" in listed

    options = ("--model", call.checkpoint, "--device", "cpu", "--out", tmp_path / "run")
    assert "all checks passed" in call("check", *options)
    assert json.loads((tmp_path / "run" / "sanity_check_model.json").read_text())["passed"]
    call("patch", "--no-need", "--kind", "prosody", "--max-pairs", 2, *options)
    config = json.loads((tmp_path / "run" / "patching_config.json").read_text())
    assert (config["model"]["family"], config["model"]["n_layers"]) == ("Toy", 4)
    assert len((tmp_path / "run" / "patching_records_prosody.jsonl").read_text().splitlines()) == 2 * 4

    call.plugin.write_text(call.plugin.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    line = (
        call("patch", "--no-need", "--kind", "semantic", "--max-pairs", 2, *options, status=1).strip().splitlines()[-1]
    )
    assert line.startswith("error: ") and "model" in line  # another code is another model


def test_a_check_that_fails_ends_with_status_3_and_the_familys_file(call, tmp_path):
    text = call.plugin.read_text()
    call.plugin.write_text(text.replace("return self.encoder(features)", "return self.embed(range(len(features)))"))
    output = call("check", "--model", call.checkpoint, "--out", tmp_path / "run", status=CHECK_FAILED)
    line = output.strip().splitlines()[-1]
    assert line.startswith("error: check failed") and f"{call.plugin}:" in line and "embeddings of text" in line


def test_a_plugin_is_mended_and_checked_again_in_the_same_folder(call, tmp_path):
    good = call.plugin.read_text()
    options = ("check", "--model", call.checkpoint, "--out", tmp_path / "run")
    call.plugin.write_text(good.replace("return n_samples // 640", "return n_samples // 320"))
    assert "n_audio" in call(*options, status=CHECK_FAILED)
    call.plugin.write_text(good)
    assert "all checks passed" in call(*options)
    call.plugin.write_text(good + "X = 1\n")
    assert "holds a run with another model" in call(*options, status=1)


def test_a_checkpoint_of_a_plugins_family_needs_the_plugin(call, tmp_path):
    result = CliRunner().invoke(cli, ["check", "--model", str(call.checkpoint), "--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and "toy_speech" in result.output and "--plugin" in result.output
