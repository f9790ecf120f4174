"""The same question for every family, in the turn that its checkpoint's own template writes."""

import json
import shutil

import pytest

from tests.models.families.builders import BUILDERS
from tests.models.families.conftest import load
from tests.models.families.tiny import write_tokenizer
from voicepatch.models.speech_lm import load_speech_lm
from voicepatch.types.task import default_task, load_task

QUESTION = default_task().question


@pytest.mark.parametrize("name", BUILDERS)
def test_the_question_is_asked_verbatim_around_one_sound(made, name):
    speech = made(name).speech
    prompt, decode = speech.prompt, speech.tokenizer.convert_ids_to_tokens
    assert prompt.text.count(QUESTION) == 1 and (prompt.system or "") in prompt.text
    question = speech.tokenizer.encode(QUESTION, add_special_tokens=False)
    starts = [i for i in range(len(prompt.after)) if prompt.after[i : i + len(question)] == question]
    assert len(starts) == 1
    for token, there in zip(prompt.borders, (prompt.before[-1:], prompt.after[:1]), strict=True):
        assert token is None or decode(there) == [token]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_loaded_model_is_asked_another_question_as_if_it_had_been_loaded_with_it(made, name):
    case, task = made(name), load_task("gender")
    asked = case.speech.ask(task.asked(), task.texts)
    loaded = load_speech_lm(case.tiny.folder, "cpu", "float32", task)
    assert (asked.prompt, asked.tokenizer, asked.llm) == (loaded.prompt, loaded.tokenizer, case.speech.llm)
    assert QUESTION in case.speech.prompt.text and task.question in asked.prompt.text


QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'audio' %}SOUND{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\nEND{% endif %}"
)


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json"])
def test_the_folders_own_template_writes_the_turn(copy, file):
    folder = copy("Qwen2-Audio")
    template = QWEN.replace("SOUND", "Listen: <|audio_bos|><|AUDIO|><|audio_eos|>").replace("END", "")
    (folder / file).write_text(template if file.endswith("jinja") else json.dumps({"chat_template": template}))
    assert load(folder).prompt.text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nListen: "
        f"<|audio_bos|><|AUDIO|><|audio_eos|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_processors_template_goes_before_the_tokenizers_and_a_text_models_gives_way(copy):
    folder = copy("Qwen2-Audio")
    documented = load(folder).prompt.text
    config = json.loads((folder / "tokenizer_config.json").read_text())
    text_only = "{% for m in messages %}<|im_start|>{{ m['role'] }}{{ m['content'] + 'x' }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": text_only}))
    assert load(folder).prompt.text == documented and "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n" in documented
    template = QWEN.replace("SOUND", "Hear: <|audio_bos|><|AUDIO|><|audio_eos|>").replace("END", "")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert "Hear: " in load(folder).prompt.text
    only_parts = template.replace("{% if m['content'] is string %}{{ m['content'] }}{% else %}", "").replace(
        "{% endif %}<|im_end|>", "<|im_end|>"
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": only_parts}))
    assert "Hear: " in load(folder).prompt.text


GEMMA = (
    "<bos>{% for m in messages %}<|turn>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'audio' %}<|audio|>{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}"
    "{% endif %}"
)


@pytest.mark.parametrize(
    ("name", "template"),
    [("Music Flamingo", QWEN.replace("SOUND", "<sound>").replace("END", "")), ("Gemma 4 12B", GEMMA)],
)
def test_where_the_processor_adds_the_borders_a_template_writes_the_placeholder_alone(copy, made, name, template):
    folder, prompt = copy(name), made(name).speech.prompt
    (folder / "chat_template.jinja").write_text(template)
    assert load(folder).prompt == prompt
    assert None not in prompt.borders


def test_a_thought_that_gemmas_template_leaves_open_is_refused(copy, refused):
    folder = copy("Gemma 4 12B")
    (folder / "chat_template.jinja").write_text(GEMMA.replace("<channel|>", ""))
    with refused("thinks before it answers"):
        load(folder)


def saying(word):
    return QWEN.replace("SOUND", f"{word}: <|audio_bos|><|AUDIO|><|audio_eos|>").replace("END", "")


def in_a_list(templates):
    return [{"name": name, "template": template} for name, template in templates.items()]


SEVERAL = {"tool_use": saying("Wrong"), "default": saying("Right"), "rag": saying("Wrong")}
FORMS = {
    "tokenizer_config.json": {"chat_template": in_a_list(SEVERAL)},
    "chat_template.json": {"chat_template": SEVERAL},
    "processor_config.json": {"chat_template": SEVERAL},
    "additional_chat_templates": SEVERAL,
}


def write_templates(folder, form, content):
    if form != "additional_chat_templates":
        path = folder / form
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | content))
        return
    (folder / form).mkdir()
    for name, template in content.items():
        place = "chat_template.jinja" if name == "default" else f"{form}/{name}.jinja"
        (folder / place).write_text(template)


@pytest.mark.parametrize("form", FORMS)
def test_of_several_templates_the_default_one_writes_the_turn(copy, made, form):
    folder = copy("Qwen2-Audio")
    write_templates(folder, form, FORMS[form])
    prompt = load(folder).prompt
    assert "Right: " in prompt.text and "Wrong" not in prompt.text
    shutil.rmtree(folder)
    alone = copy("Qwen2-Audio")
    (alone / "chat_template.jinja").write_text(saying("Right"))
    assert load(alone).prompt == prompt


@pytest.mark.parametrize("form", FORMS)
def test_several_templates_without_a_default_are_refused_by_their_names(copy, refused, form):
    folder = copy("Qwen2-Audio")
    several = {name: template for name, template in SEVERAL.items() if name != "default"}
    content = several
    if form != "additional_chat_templates":
        content = {"chat_template": in_a_list(several) if form == "tokenizer_config.json" else several}
    write_templates(folder, form, content)
    with refused(folder, "tool_use", "rag", "none is called default"):
        load(folder)


def test_the_processors_files_go_before_the_tokenizers_in_the_order_of_transformers(copy):
    folder = copy("Qwen2-Audio")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"chat_template": saying("Fourth")}))
    assert "Fourth: " in load(folder).prompt.text
    (folder / "chat_template.jinja").write_text(saying("Third"))
    assert "Third: " in load(folder).prompt.text
    for name, word in (("chat_template.json", "Second"), ("processor_config.json", "First")):
        (folder / name).write_text(json.dumps({"chat_template": saying(word)}))
        assert f"{word}: " in load(folder).prompt.text


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "Voxtral"])  # which has none
def test_dropout_moves_no_familys_turn(copy, made, name):
    folder, speech = copy(name), made(name).speech
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    found = load(folder)
    assert (found.tokenizer, found.prompt) == (speech.tokenizer, speech.prompt)


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_template_without_end_is_named_for_every_file_that_may_hold_it(copy, refused, monkeypatch, file):
    monkeypatch.setattr("voicepatch.models.bounded.SECONDS", 1)
    folder, endless = copy("Qwen2-Audio"), "{% for i in range(10**5) %}" * 4 + "{% endfor %}" * 4 + saying("x")
    path = folder / file
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(endless if file.endswith("jinja") else json.dumps(config | {"chat_template": endless}))
    with refused(path.parent, "takes more than 1 s"):
        load(folder)


def test_a_pattern_without_end_in_mistrals_file_is_named(copy, refused, monkeypatch):
    monkeypatch.setattr("voicepatch.models.bounded.SECONDS", 1)
    path = copy("Voxtral") / "tekken.json"
    content = json.loads(path.read_text())
    content["config"]["pattern"] = r"(.|..|...)+(?!.|$)|\w+"
    path.write_text(json.dumps(content))
    with refused(path.parent, "takes more than 1 s"):
        load(path.parent)


@pytest.mark.parametrize(
    ("sound", "end", "word"),
    [
        ("", "", "one <|AUDIO|>"),
        ("<|AUDIO|>", "", "one <|AUDIO|>"),  # without its borders
        ("<|audio_bos|><|AUDIO|><|AUDIO|><|audio_eos|>", "", "one <|AUDIO|>"),
        ("<|audio_bos|><|AUDIO|><|audio_eos|>", "<think>\n", "thinks before it answers"),
    ],
)
def test_a_template_that_does_not_give_the_turn_is_refused(copy, refused, sound, end, word):
    folder = copy("Qwen2-Audio")
    (folder / "chat_template.jinja").write_text(QWEN.replace("SOUND", sound).replace("END", end))
    with refused(word):
        load(folder)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(copy, refused):
    folder = copy("Qwen2-Audio")
    sound = ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]
    ids = write_tokenizer(folder, [*(f"<{i}>" for i in range(200)), "<|im_start|>", "<|im_end|>", *sound])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"audio_token_index": ids["<|AUDIO|>"]}))
    with refused(f"token {ids['<|audio_eos|>']}", "ends before it, at 384"):
        load(folder)


def test_labels_that_share_their_first_token_are_refused(copy, refused):
    folder = copy("Qwen2-Audio")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = []  # then sad and surprised both begin with s
    path.write_text(json.dumps(content))
    with refused("'sad' and 'surprised'"):
        load(folder)
