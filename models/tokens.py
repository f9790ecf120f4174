"""A checkpoint's tokenizer, and the turn that its chat template writes.

    tokenizer, prompt = read_turn(folder, config.audio_token_id, lambda sound: Turn("You are …", sound, documented))
    prompt.before, prompt.after                  # token ids on both sides of the sound

No processor of transformers is needed: the two halves of the turn are tokenised apart, and frames stand between.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from errors import UserError
from models.folder import read_json
from models.labels import LabelTokenizerHelper, Tokenizer
from models.speech_lm import PROMPT, Prompt


@contextmanager
def tokenizer_faults(folder: Path) -> Iterator[None]:
    """Inside, whatever a broken tokenizer or chat template does is one `UserError`."""
    level = transformers.logging.get_verbosity()
    # transformers 5 warns of a Mistral regex for any Qwen-like tokenizer; the ids are right without it.
    transformers.logging.set_verbosity_error()
    try:
        yield
    except UserError:
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
    """The tokenizer of a checkpoint folder; no code of its own is run. Use it inside `tokenizer_faults`."""
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        if path.exists():  # another sort of tokenizer has other files
            read_json(path)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


@dataclass(frozen=True)
class Turn:
    """How a family asks about a sound.

    `documented` is the whole turn as its documentation gives it, with the placeholder `sound` and the question in it;
    it is used where the folder holds no chat template. `inline` says that a template takes the placeholder as text, and
    not as a part of its own.
    """

    system: str | None
    sound: str
    documented: str
    borders: tuple[str | None, str | None] = (None, None)
    inline: bool = False


def make_prompt(tokenizer: PreTrainedTokenizerBase, folder: Path, turn: Turn) -> Prompt:
    """The turn by the folder's chat template, tokenised on both sides of the sound.

    Raises `UserError` where the template does not give the system turn, the question and one place for the sound, or
    lets the model think before it answers. Use it inside `tokenizer_faults`.
    """
    LabelTokenizerHelper(tokenizer)  # labels that it cannot tell apart are refused before the weights are read
    text = _text(tokenizer, folder, turn)
    if text.rstrip().endswith("<think>"):
        raise UserError(f"{folder}: the model thinks before it answers, so its first token is no answer; take another")
    ids = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(turn.sound)]
    for token, there in zip(turn.borders, (ids[0][-1:], ids[1][:1]), strict=True):
        if token and tokenizer.convert_ids_to_tokens(there) != [token]:
            raise UserError(f"{folder}: the tokenizer lacks {token}; use the checkpoint's own")
    return Prompt(turn.system, text, *ids, turn.borders)


def _text(tokenizer: PreTrainedTokenizerBase, folder: Path, turn: Turn) -> str:
    own = None
    if (folder / "chat_template.jinja").is_file():
        own = tokenizer.chat_template
    elif (folder / "chat_template.json").is_file():  # where processors before transformers 5 saved theirs
        own = read_json(folder / "chat_template.json").get("chat_template")
    text = _rendered(tokenizer, own or tokenizer.chat_template, turn)
    if text is None and own:
        raise UserError(
            f"{folder}: the chat template does not give the turn with one {turn.sound} in it; use the checkpoint's own"
        )
    # A template in tokenizer_config.json may be that of a text model, which knows of no sound.
    return turn.documented if text is None else text


def _rendered(tokenizer: PreTrainedTokenizerBase, template: Any, turn: Turn) -> str | None:
    """The whole turn, or None where the template does not give it in any of the forms that templates take."""
    if not template:
        return None
    question: Any = turn.sound + PROMPT
    if not turn.inline:
        question = [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": PROMPT}]
    for system in (turn.system, [{"type": "text", "text": turn.system}]):
        messages = [{"role": "user", "content": question}]
        if turn.system is not None:
            messages.insert(0, {"role": "system", "content": system})
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=True, tokenize=False, enable_thinking=False
            )
        except Exception:  # whatever a template does with a form that it does not take
            continue
        if _is_whole(text, turn):
            return text
    return None


def _is_whole(text: str, turn: Turn) -> bool:
    before, *after = text.split(turn.sound)
    first, last = (token or "" for token in turn.borders)
    parts = (PROMPT, turn.system or "")
    return (
        len(after) == 1 and all(part in text for part in parts) and before.endswith(first) and after[0].startswith(last)
    )


def check_vocabulary(tokenizer: Tokenizer, prompt: Sequence[int], n_rows: int) -> None:
    """Raise `UserError` where the prompt or a label has a token for which the embeddings have no row."""
    highest = max([*prompt, *LabelTokenizerHelper(tokenizer).token_ids])
    if highest >= n_rows:
        raise UserError(
            f"the tokenizer (tokenizer.json, tekken.json) gives token {highest}, but config.json's vocabulary ends "
            f"before it, at {n_rows}; take both files from one checkpoint"
        )


def read_turn(folder: Path, sound_id: Any, turn_of: Callable[[str], Turn]) -> tuple[PreTrainedTokenizerBase, Prompt]:
    """The tokenizer of a folder and the turn in it, which `turn_of` gives for the sound's token; see `make_prompt`."""
    with tokenizer_faults(folder):
        tokenizer = read_tokenizer(folder)
        return tokenizer, make_prompt(tokenizer, folder, turn_of(sound_token(tokenizer, folder, sound_id)))


def sound_token(tokenizer: PreTrainedTokenizerBase, folder: Path, token_id: Any) -> str:
    """The placeholder as text, from the id that `config.json` gives it."""
    token = tokenizer.convert_ids_to_tokens(token_id) if type(token_id) is int and token_id >= 0 else None
    if not isinstance(token, str):
        raise UserError(
            f"{folder}: the tokenizer has no token {token_id!r}, which config.json names as the sound's; "
            "take both files from one checkpoint"
        )
    return token
