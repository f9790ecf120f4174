"""A checkpoint's tokenizer, and the turn that its chat template writes.

    tokens, prompt = read_turn(folder, config.audio_token_id, turn, question, labels)
    prompt.before, prompt.after                  # token ids on both sides of the sound

No processor of transformers is needed: the two halves of the turn are tokenised apart, and frames stand between.
Template and tokenizer run in a process of their own (`bounded`); here there are only the ids that they gave.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from voicepatch.errors import UserError
from voicepatch.models.bounded import At, bounded
from voicepatch.models.folder import read_json
from voicepatch.models.labels import LabelTokenizerHelper, Tokenizer
from voicepatch.models.speech_lm import Prompt

DATE = datetime(2024, 12, 19)  # what a chat template that asks for the date is given: the one of Granite's model card
MAX_CHARACTERS = 100_000  # of a turn; the longest documented one has 400
REPEATS = 10  # times that a prompt is made: what is drawn at random is seen in them
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Tokens:
    """What a checkpoint's tokenizer made of the labels and the question, and the names of all ids in use."""

    ids: Mapping[str, list[int]]
    names: Mapping[int, str]

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a label or of the question; `KeyError` for any other text, which was not tokenised."""
        return list(self.ids[text])

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens as text; an id that is not in use as its number in brackets."""
        return [self.names.get(token_id, f"<{token_id}>") for token_id in ids]


def settled(
    folder: Path, tokenizer: Tokenizer, make: Callable[[], Prompt], texts: Sequence[str]
) -> tuple[Tokens, Prompt]:
    """The prompt that `make` gives, and the tokens of `texts`; `UserError` where a second run gives others."""
    results = [_made(tokenizer, make, texts) for _ in range(REPEATS)]
    if any(result != results[0] for result in results):
        raise UserError(
            f"{folder}: the chat template or the tokenizer gives another prompt each time that it is asked; "
            "remove what draws at random from them"
        )
    return results[0]


def _made(tokenizer: Tokenizer, make: Callable[[], Prompt], texts: Sequence[str]) -> tuple[Tokens, Prompt]:
    prompt = make()
    ids = {text: list(tokenizer.encode(text, add_special_tokens=False)) for text in texts}
    used = sorted({*prompt.before, *prompt.after}.union(*ids.values()))
    return Tokens(ids, dict(zip(used, map(str, tokenizer.convert_ids_to_tokens(used)), strict=True))), prompt


@contextmanager
def tokenizer_faults(folder: Path) -> Iterator[None]:
    """Inside, whatever a broken tokenizer or chat template does is one `UserError`."""
    level = transformers.logging.get_verbosity()
    # transformers 5 warns of a Mistral regex for any Qwen-like tokenizer; the ids are right without it.
    transformers.logging.set_verbosity_error()
    try:
        yield
    except (UserError, MemoryError):
        raise
    except BaseException as error:
        # A broken tokenizer.json raises plain Exception, a broken template what it likes, and a panic of the tokenizers
        # library is no Exception at all.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{folder}: no readable tokenizer ({reason[:120]}); "
            "the folder needs the checkpoint's own tokenizer.json and tokenizer_config.json"
        ) from None
    finally:
        transformers.logging.set_verbosity(level)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, with nothing in it drawn at random; no code of its own is run.

    Use it inside `tokenizer_faults`.
    """
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        if path.exists():  # another sort of tokenizer has other files
            read_json(path)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
    if model is not None and getattr(model, "dropout", None) is not None:  # of BPE, left from training
        model.dropout = None
    return tokenizer


@dataclass(frozen=True)
class Turn:
    """How a family asks about a sound.

    `documented` is the whole turn as its documentation gives it, with the placeholder `sound` and the `question` in it;
    it is used where the folder holds no chat template. `inline` says that a template takes the placeholder as text, and
    not as a part of its own.
    """

    system: str | None
    sound: str
    question: str
    documented: str
    borders: tuple[str | None, str | None] = (None, None)
    inline: bool = False


def make_prompt(at: At, tokenizer: PreTrainedTokenizerBase, folder: Path, turn: Turn, labels: Sequence[str]) -> Prompt:
    """The turn by the folder's chat template, tokenised on both sides of the sound.

    Raises `UserError` where the template does not give the system turn, the question and one place for the sound, or
    lets the model think before it answers. Use it inside `tokenizer_faults`.
    """
    LabelTokenizerHelper(tokenizer, labels)  # labels that it cannot tell apart are refused before the weights are read
    text, date = _text(at, tokenizer, folder, turn)
    if text.rstrip().endswith("<think>"):
        raise UserError(f"{folder}: the model thinks before it answers, so its first token is no answer; take another")
    at(folder / "tokenizer.json")
    ids = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(turn.sound)]
    for token, there in zip(turn.borders, (ids[0][-1:], ids[1][:1]), strict=True):
        if token and tokenizer.convert_ids_to_tokens(there) != [token]:
            raise UserError(f"{folder}: the tokenizer lacks {token}; use the checkpoint's own")
    before, after = ids
    return Prompt(turn.system, text, before, after, turn.borders, date=date)


def _text(at: At, tokenizer: PreTrainedTokenizerBase, folder: Path, turn: Turn) -> tuple[str, str | None]:
    """The turn, and the date that its template was given where it asked for one."""
    path, template, of_folder = _chat_template(tokenizer, folder)
    at(path)
    found = _rendered(tokenizer, template, path, turn)
    if found is None and of_folder:
        raise UserError(
            f"{folder}: the chat template does not give the turn with one {turn.sound} in it; use the checkpoint's own"
        )
    # A template in tokenizer_config.json may be that of a text model, which knows of no sound.
    return found or (turn.documented, None)


def _chat_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[Path, Any, bool]:
    """A file, the template in it, and whether it must be one for sound: in the order of transformers' processors."""
    for name in ("processor_config.json", "chat_template.json"):
        path = folder / name
        if path.is_file() and (template := read_json(path).get("chat_template")):
            return path, default_template(template, path), True
    path = template_path(folder)
    return path, default_template(tokenizer.chat_template, path), path.name != TOKENIZER_CONFIG


def template_path(folder: Path) -> Path:
    """Where the tokenizer's chat template comes from."""
    for path in (folder / "chat_template.jinja", folder / "additional_chat_templates"):
        if path.exists():
            return path
    return folder / TOKENIZER_CONFIG


def default_template(template: Any, path: Path) -> Any:
    """Of several templates with names, the one that is called default, as in transformers; `UserError` without one."""
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        if "default" not in template:
            names = ", ".join(map(str, template)) or "none"
            raise UserError(f"{path}: of its chat templates ({names}) none is called default; give one that name")
        template = template["default"]
    return template


def render(
    tokenizer: PreTrainedTokenizerBase, template: str, path: Path, messages: list[dict]
) -> tuple[str, str | None]:
    """The text that the chat template of `path` makes of messages, and the date that it was given if it asked for one.

    Raises whatever a template does with messages that it does not take, and `UserError` for a text without end.
    """
    asked: list[str] = []

    def strftime_now(form: str) -> str:
        asked.append(form)
        return DATE.strftime(form)

    # The clock is a global of transformers' own; what is passed as a variable loses its functions on the way.
    _compile_jinja_template(template).globals["strftime_now"] = strftime_now
    text = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{path}: the chat template makes a turn of {len(text):,} characters; use the checkpoint's own")
    return text, DATE.date().isoformat() if asked else None


def _rendered(
    tokenizer: PreTrainedTokenizerBase, template: Any, path: Path, turn: Turn
) -> tuple[str, str | None] | None:
    """The whole turn, or None where the template does not give it in any of the forms that templates take."""
    if not template:
        return None
    question: Any = turn.sound + turn.question
    if not turn.inline:
        question = [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": turn.question}]
    for system in (turn.system, [{"type": "text", "text": turn.system}]):
        messages = [{"role": "user", "content": question}]
        if turn.system is not None:
            messages.insert(0, {"role": "system", "content": system})
        try:
            text, date = render(tokenizer, template, path, messages)
        except (UserError, MemoryError):
            raise
        except Exception:  # whatever a template does with a form that it does not take
            continue
        if _is_whole(text, turn):
            return text, date
    return None


def _is_whole(text: str, turn: Turn) -> bool:
    before, *after = text.split(turn.sound)
    first, last = (token or "" for token in turn.borders)
    parts = (turn.question, turn.system or "")
    return (
        len(after) == 1 and all(part in text for part in parts) and before.endswith(first) and after[0].startswith(last)
    )


def check_vocabulary(tokens: Tokens, n_rows: int) -> None:
    """Raise `UserError` where the prompt or a label has a token for which the embeddings have no row."""
    highest = max(tokens.names)
    if highest >= n_rows:
        raise UserError(
            f"the tokenizer (tokenizer.json, tekken.json) gives token {highest}, but config.json's vocabulary ends "
            f"before it, at {n_rows}; take both files from one checkpoint"
        )


TurnOf = Callable[[str, str], Turn]  # of the sound's token and the question


def read_turn(
    folder: Path, sound_id: Any, turn_of: TurnOf, question: str, labels: Sequence[str]
) -> tuple[Tokens, Prompt]:
    """The tokens of a folder and the turn in it, which `turn_of` gives; see `make_prompt`."""
    return bounded(_read_turn, folder, sound_id, turn_of, question, labels)


def _read_turn(
    at: At, folder: Path, sound_id: Any, turn_of: TurnOf, question: str, labels: Sequence[str]
) -> tuple[Tokens, Prompt]:
    at(folder / "tokenizer.json")
    with tokenizer_faults(folder):
        tokenizer = read_tokenizer(folder)
        turn = turn_of(sound_token(tokenizer, folder, sound_id), question)
        make = partial(make_prompt, at, tokenizer, folder, turn, labels)
        return settled(folder, tokenizer, make, [*labels, question])


def sound_token(tokenizer: PreTrainedTokenizerBase, folder: Path, token_id: Any) -> str:
    """The placeholder as text, from the id that `config.json` gives it."""
    token = tokenizer.convert_ids_to_tokens(token_id) if type(token_id) is int and token_id >= 0 else None
    if not isinstance(token, str):
        raise UserError(
            f"{folder}: the tokenizer has no token {token_id!r}, which config.json names as the sound's; "
            "take both files from one checkpoint"
        )
    return token
