"""A checkpoint's tokenizer, and the turn that its chat template writes.

    tokens, prompt = read_prompt(folder, config.audio_token_id, turn, question, labels)
    prompt.before, prompt.after                  # token ids on both sides of the sound

No processor of transformers is needed: the text before and after the sound is tokenised, and frames go between.
Template and tokenizer run in a process of their own (`bounded`); only the ids come back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from voicepatch.errors import UserError
from voicepatch.models.bounded import bounded
from voicepatch.models.folder import read_json
from voicepatch.models.labels import LabelTokenizerHelper, Tokenizer
from voicepatch.models.speech_lm import Prompt

DATE = datetime(2024, 12, 19)  # for chat templates that ask for the date: the one of Granite's model card


@dataclass(frozen=True)
class Tokens:
    """Token ids of the labels and of the question, and the text of each token in use."""

    ids: Mapping[str, list[int]]
    names: Mapping[int, str]

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a label or of the question; `KeyError` for any other text, which was not tokenised."""
        return list(self.ids[text])

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens as text; an id that is not in use as its number in brackets."""
        return [self.names.get(token_id, f"<{token_id}>") for token_id in ids]


def tokens_of(tokenizer: Tokenizer, prompt: Prompt, question: str, labels: Sequence[str]) -> Tokens:
    """The ids and names that are used of a tokenizer; `UserError` for labels that share their first token."""
    LabelTokenizerHelper(tokenizer, labels)
    ids = {text: list(tokenizer.encode(text, add_special_tokens=False)) for text in (*labels, question)}
    used = sorted({*prompt.before, *prompt.after}.union(*ids.values()))
    return Tokens(ids, dict(zip(used, map(str, tokenizer.convert_ids_to_tokens(used)), strict=True)))


def check_vocabulary(tokens: Tokens, n_rows: int) -> None:
    """Raise `UserError` where the prompt or a label has a token for which the embeddings have no row."""
    highest = max(tokens.names)
    if highest >= n_rows:
        raise UserError(
            f"the tokenizer (tokenizer.json, tekken.json) gives token {highest}, but config.json's vocabulary ends "
            f"before it, at {n_rows}; take both files from one checkpoint"
        )


@dataclass(frozen=True)
class Turn:
    """How a family asks about a sound.

    `documented` is the turn of the family's documentation, with `{sound}` and `{question}` in it; it is used where the
    folder has no chat template, and None where it must have one. `borders` are the tokens directly beside the sound,
    None for none, and `end` is a token after the generation prompt. `message` is the user's message where a chat
    template takes it as text, with `{sound}` and `{question}` in it; None where the sound is a part of its own.
    `adds_borders` says that a chat template writes the placeholder alone, and the family's processor adds the borders;
    `has_template` is false where the folder's chat template is never used.
    """

    system: str | None
    documented: str | None
    borders: tuple[str | None, str | None] = (None, None)
    end: str = ""
    message: str | None = None
    adds_borders: bool = False
    has_template: bool = True


def read_prompt(
    folder: Path, sound: int | str, turn: Turn, question: str, labels: Sequence[str]
) -> tuple[Tokens, Prompt]:
    """The prompt that a folder's chat template and tokenizer make of a turn.

    `sound` is the placeholder of the sound: its token id in `config.json`, or its text. Raises `UserError` where the
    template does not give the system turn, the question and one place for the sound, or lets the model think before it
    answers, and where the tokenizer lacks a token of the turn.
    """
    return bounded(_read_prompt, folder, sound, turn, question, labels)


def _read_prompt(
    folder: Path, sound: int | str, turn: Turn, question: str, labels: Sequence[str]
) -> tuple[Tokens, Prompt]:
    with _tokenizer_faults(folder):
        tokenizer = read_tokenizer(folder)
        placeholder = tokenizer.convert_ids_to_tokens(sound) if isinstance(sound, int) else sound
        if placeholder is None:
            raise UserError(
                f"{folder}: the tokenizer has no token {sound}, which config.json gives for the sound; take both files "
                "from one checkpoint"
            )
        text, date = _text(tokenizer, folder, turn, placeholder, question)
        if text.rstrip().endswith(("<think>", "<|channel>thought")):
            raise UserError(f"{folder}: the model thinks before it answers, so its first token is no answer")
        before, after = (tokenizer.encode(part, add_special_tokens=False) for part in text.split(placeholder))
        for token, there in ((turn.borders[0], before[-1:]), (turn.borders[1], after[:1]), (turn.end, after[-1:])):
            if token and tokenizer.convert_ids_to_tokens(there) != [token]:
                raise UserError(f"{folder}: the tokenizer lacks {token}; use the checkpoint's own")
        prompt = Prompt(turn.system, text, before, after, turn.borders, date=date)
        return tokens_of(tokenizer, prompt, question, labels), prompt


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, with nothing in it drawn at random.

    No code of the checkpoint is run; of a tokenizer with a class of its own, `tokenizer.json` is read.
    """
    path = folder / "tokenizer_config.json"
    has_code = path.is_file() and "AutoTokenizer" in (read_json(path).get("auto_map") or {})
    kind = PreTrainedTokenizerFast if has_code else AutoTokenizer
    tokenizer = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
    if model is not None and getattr(model, "dropout", None) is not None:  # of BPE, left from training
        model.dropout = None
    return tokenizer


@contextmanager
def _tokenizer_faults(folder: Path) -> Iterator[None]:
    # transformers 5 warns of a Mistral regex for any Qwen-like tokenizer; the ids are right without it.
    transformers.logging.set_verbosity_error()
    try:
        yield
    except (UserError, MemoryError):
        raise
    # A broken tokenizer.json raises plain Exception, a broken template any error, and a panic of the tokenizers library
    # is no Exception.
    except BaseException as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{folder}: no readable tokenizer ({reason[:120]}); "
            "the folder needs the checkpoint's own tokenizer.json and tokenizer_config.json"
        ) from None


def _text(
    tokenizer: PreTrainedTokenizerBase, folder: Path, turn: Turn, sound: str, question: str
) -> tuple[str, str | None]:
    """The turn, and the date that its template was given where it asked for one."""
    template, is_for_sound = _chat_template(tokenizer, folder) if turn.has_template else (None, False)
    found = _rendered(tokenizer, template, turn, sound, question) if template else None
    if found is not None:
        return found
    if turn.documented is None or template and (is_for_sound or turn.message is not None):
        raise UserError(
            f"{folder}: the chat template does not give the turn with one {sound} in it; use the checkpoint's own"
        )
    # A template in tokenizer_config.json may be that of a text model, which has no place for sound.
    return turn.documented.format(sound=sound, question=question), None


def _chat_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[Any, bool]:
    """The folder's template, and whether it must be one for sound: in the order of transformers' processors.

    Of several templates with names it is the one called default, as in transformers.
    """
    template: Any = None
    for path in (folder / "processor_config.json", folder / "chat_template.json"):
        template = template or (read_json(path).get("chat_template") if path.is_file() else None)
    is_for_sound = bool(template) or any(
        (folder / name).exists() for name in ("chat_template.jinja", "additional_chat_templates")
    )
    template = template or tokenizer.chat_template
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        if "default" not in template:
            names = ", ".join(map(str, template)) or "none"
            raise UserError(f"{folder}: of its chat templates ({names}) none is called default; give one that name")
        template = template["default"]
    return template, is_for_sound


def _rendered(
    tokenizer: PreTrainedTokenizerBase, template: str, turn: Turn, sound: str, question: str
) -> tuple[str, str | None] | None:
    """The turn and its date, or None where the template does not give it from any form of the messages."""
    first, last = (token or "" for token in turn.borders)
    content: Any = (turn.message or "").format(sound=first + sound + last, question=question)
    if turn.message is None:
        content = [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": question}]
    for system in (turn.system, [{"type": "text", "text": turn.system}]):
        messages = [{"role": "user", "content": content}]
        if turn.system is not None:
            messages.insert(0, {"role": "system", "content": system})
        try:
            text, date = _render(tokenizer, template, messages)
            text = text.replace(sound, first + sound + last) if turn.adds_borders else text
        except MemoryError:
            raise
        except Exception:  # any error of a template with a form that it does not take
            continue
        has_text = question in text and (turn.system or "") in text
        if has_text and text.count(sound) == 1 and first + sound + last in text:
            return text + turn.end, date
    return None


def _render(tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict]) -> tuple[str, str | None]:
    """The text that a chat template makes of messages, and the date that it was given if it asked for one."""
    forms: list[str] = []

    def strftime_now(form: str) -> str:
        forms.append(form)
        return DATE.strftime(form)

    # The clock is a global of transformers' own; what is passed as a variable loses its functions on the way.
    _compile_jinja_template(template).globals["strftime_now"] = strftime_now
    text = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    return text, DATE.date().isoformat() if forms else None
