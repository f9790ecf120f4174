"""The turn is the one that transformers' default template writes, the same each day, from files that may be hostile."""

import datetime
import json
import shutil
from pathlib import Path

import msgspec
import pytest
import transformers

from tests.models.conftest import read_turn
from voicepatch.models.checkpoint import checkpoint_hash
from voicepatch.models.labels import LabelTokenizerHelper
from voicepatch.models.tokens import DATE
from voicepatch.paths import DEMO_MODEL
from voicepatch.store.documents import Prompt
from voicepatch.types.task import default_task

LABELS = default_task().labels
QUESTION = default_task().question

TEMPLATE = json.loads((DEMO_MODEL / "tokenizer_config.json").read_text())["chat_template"]
OTHER = "{{ 'Some tools. ' }}" + TEMPLATE


@pytest.fixture
def demo(tmp_path):
    """The demo's folder without its weights."""
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "demo", ignore=shutil.ignore_patterns("*.safetensors")))


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- several templates


def named(folder, templates, form):
    """Several templates in one of the two forms that transformers writes."""
    if form == "list":
        several = [{"name": name, "template": template} for name, template in templates.items()]
        change(folder / "tokenizer_config.json", chat_template=several)
        return
    change(folder / "tokenizer_config.json", chat_template=None)
    (folder / "additional_chat_templates").mkdir()
    for name, template in templates.items():
        path = (
            folder / "chat_template.jinja" if name == "default" else folder / f"additional_chat_templates/{name}.jinja"
        )
        path.write_text(template)


@pytest.mark.parametrize("form", ["list", "files"])
def test_of_several_templates_the_default_one_writes_the_turn_as_in_transformers(demo, form):
    tokens, prompt = read_turn(demo)
    named(demo, {"tool_use": OTHER, "default": TEMPLATE, "rag": OTHER}, form)
    assert read_turn(demo) == (tokens, prompt)
    theirs = transformers.AutoTokenizer.from_pretrained(demo)
    assert sorted(theirs.chat_template) == ["default", "rag", "tool_use"]
    question = "<|im_audio_start|><|im_audio|><|im_audio_end|>" + QUESTION
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": question}]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, enable_thinking=False)
    assert prompt.text == text + "<|im_tts_start|>" and "Some tools" not in text


@pytest.mark.parametrize("form", ["list", "files"])
def test_several_templates_without_a_default_are_refused_by_their_names(demo, refused, form):
    named(demo, {"tool_use": OTHER, "rag": TEMPLATE}, form)
    with refused("tool_use", "rag", "none is called default"):
        read_turn(demo)


def test_a_template_in_the_folder_of_further_ones_is_part_of_the_checkpoints_hash(demo):
    shutil.copy(DEMO_MODEL / "model.safetensors", demo)
    named(demo, {"default": TEMPLATE, "rag": OTHER}, "files")
    before = checkpoint_hash(demo)
    (demo / "additional_chat_templates" / "default.jinja").write_text(OTHER)  # goes before chat_template.jinja
    assert checkpoint_hash(demo) != before and read_turn(demo)[1].text.startswith("Some tools. ")


# --- nothing at random


@pytest.mark.parametrize("dropout", [0.1, 0.9, 1.0])
def test_what_dropout_was_trained_with_draws_no_tokens(demo, dropout):
    tokens, prompt = read_turn(demo)
    content = json.loads((demo / "tokenizer.json").read_text())
    content["model"]["dropout"] = dropout
    (demo / "tokenizer.json").write_text(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(demo)
    drawn = {tuple(theirs.encode(QUESTION, add_special_tokens=False)) for _ in range(20)}
    assert tuple(tokens.encode(QUESTION)) not in drawn or len(drawn) > 1, "nothing to switch off: no object"
    assert read_turn(demo) == (tokens, prompt)
    assert LabelTokenizerHelper(read_turn(demo)[0], LABELS).token_ids == LabelTokenizerHelper(tokens, LABELS).token_ids


class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 5, 6)


CLOCK = "{{ 'Today is ' + strftime_now('%d %B %Y, %H:%M') + '. ' }}" + TEMPLATE


def test_a_template_that_asks_for_the_date_gets_the_same_each_day_and_it_is_recorded(demo, monkeypatch):
    without = read_turn(demo)[1]
    assert without.date is None
    change(demo / "tokenizer_config.json", chat_template=CLOCK)
    today = read_turn(demo)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)  # the clock that it would be given
    theirs = transformers.AutoTokenizer.from_pretrained(demo)
    assert "06 May 2031" in theirs.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert read_turn(demo) == today
    assert today[1].text == "Today is 19 December 2024, 00:00. " + without.text
    assert today[1].date == "2024-12-19" == DATE.date().isoformat()


def test_a_run_records_the_date_where_a_template_asks_for_it(demo):
    from voicepatch.engine.subject import load_subject
    from voicepatch.runs.executor import LocalExecutor

    shutil.copy(DEMO_MODEL / "model.safetensors", demo)
    before = LocalExecutor(load_subject(demo, device="cpu")).identity()["prompt"]
    change(demo / "tokenizer_config.json", chat_template=CLOCK)
    found = LocalExecutor(load_subject(demo, device="cpu")).identity()["prompt"]
    assert "date" not in before and found["date"] == "2024-12-19" and found["text"] != before["text"]
    for prompt in (before, found):  # as the reader of a run's files takes them
        assert msgspec.to_builtins(msgspec.convert(prompt, Prompt)) == prompt


# --- without end


HOSTILE = {
    "a loop": ("{% for i in range(10**5) %}" * 4 + "{% endfor %}" * 4, "takes more than 1 s"),
    "lorem ipsum": ("{{ lipsum(n=10**8) }}", "takes more than"),
    "a width": ("{{ '{:>10000000000}'.format(1) }}", "GiB of memory"),
    "an old width": ("{{ '%10000000000d' % 1 }}", "takes more than"),
    "a product": ("{{ 'a' * 10**11 }}", "GiB of memory"),
    "doubling": (
        "{% set n = namespace(s='a' * 10**6) %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "takes more than",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_template_without_end_is_named_in_one_line(demo, refused, monkeypatch, name, file):
    monkeypatch.setattr("voicepatch.models.bounded.SECONDS", 1)
    template, words = HOSTILE[name]
    if file == "chat_template.jinja":
        (demo / file).write_text(template + TEMPLATE)
    else:
        change(demo / file, chat_template=template + TEMPLATE)
    with refused(demo, "chat template", words):
        read_turn(demo)


def growth(times, content):
    one = {"type": "Replace", "pattern": {"String": "e"}, "content": content}
    return {"type": "Sequence", "normalizers": [one] * times}


@pytest.mark.parametrize("normaliser", [growth(60, "ee"), growth(3, "e" * 4000)], ids=["in steps", "at once"])
def test_a_normaliser_without_end_is_named_in_one_line(demo, refused, monkeypatch, capfd, normaliser):
    monkeypatch.setattr("voicepatch.models.bounded.SECONDS", 1)
    change(demo / "tokenizer.json", normalizer=normaliser)
    with refused(demo, "its tokenizer", "use the checkpoint's own files"):
        read_turn(demo)
    assert capfd.readouterr().err == ""


def test_nothing_of_a_tokenizer_is_left_but_ids_and_names(demo):
    tokens, prompt = read_turn(demo)
    theirs = transformers.AutoTokenizer.from_pretrained(demo)
    for text in (*LABELS, QUESTION):
        assert tokens.encode(text) == theirs.encode(text, add_special_tokens=False)
    ids = [*prompt.before, *prompt.after]
    assert tokens.convert_ids_to_tokens([*ids, -200]) == [*theirs.convert_ids_to_tokens(ids), "<-200>"]
    with pytest.raises(KeyError):
        tokens.encode("any other text")
