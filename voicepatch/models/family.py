"""What is known of a family of speech language models before its weights are read. No torch here.

    @family(model_type="toy_speech", frames_per_second=25, max_audio_length="30 s")
    def load(folder, device, dtype):
        \"\"\"Toy: a convolution and four blocks.\"\"\"
        return Toy(...)                              # a SpeechLM, see voicepatch/models/speech_lm.py

A file that is named with `--plugin` declares a family in this way; the built-in ones are in `families.py`.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.plugins import Registry

EXACT = ("stepwise", "sweep", "tail")
TOKENIZER_FILES = (
    "tokenizer*", "vocab.json", "merges.txt", "added_tokens.json", "*.jinja", "additional_chat_templates/*.jinja"
)  # fmt: skip
PROCESSOR_FILES = (
    *TOKENIZER_FILES, "special_tokens_map.json", "chat_template.json", "preprocessor_config.json",
    "processor_config.json",
)  # fmt: skip
Config = Mapping[str, Any]
Load = Callable[..., Any]


@dataclass(frozen=True)
class Family:
    """A family: how its checkpoints are recognised and loaded, and what is known of them.

    `model_types` are those of `config.json`; `recognises(config)` decides where no family has the model type.
    `load(folder, device, dtype)` gives a `SpeechLM`. `frames_per_second` and `max_audio_length` are None where unknown.
    `engines` are those that are exact for it. A hub id is fetched from its branch in `revisions`, or from main.

    Of a checkpoint, `input_files` are the patterns of what is read beside `config.json` and the safetensors weights;
    None means that any file may be read. All that may be read is hashed. Tensors are read whose name begins with one of
    `parts` and with none of `skips`. `adapter` is the folder of a LoRA inside the checkpoint's ("" for the checkpoint's
    own); None means that a checkpoint with a LoRA is an error. `without_weights(folder, dtype)` gives the `SpeechLM` on
    torch's `meta` device, from `config.json` alone; None means that its memory is not known before it is loaded.
    """

    name: str
    summary: str
    load: Load
    where: str
    model_types: tuple[str, ...] = ()
    recognises: Callable[[Config], bool] | None = None
    hub_ids: tuple[str, ...] = ()
    licence: str | None = None
    frames_per_second: float | None = None
    max_audio_length: str | None = None
    layers: str | None = None
    engines: tuple[str, ...] = EXACT
    parts: tuple[str, ...] = ("",)
    skips: tuple[str, ...] = ()
    adapter: str | None = None
    input_files: tuple[str, ...] | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
    without_weights: Callable[[Path, Any], Any] | None = None

    def needs(self, name: str) -> bool:
        """Whether a tensor of this name is read."""
        return name.startswith(self.parts) and not name.startswith(self.skips)

    def engine(self, name: str) -> str:
        """The engine for `--engine`: `auto` is the fastest one that is declared as exact.

        Where all are, the decoder decides (`Engine`).
        """
        if name != "auto" or self.engines == EXACT:
            return name
        return next(one for one in EXACT[::-1] if one in (*self.engines, "stepwise"))

    @property
    def path(self) -> Path:
        """The file that declares it."""
        return Path(self.where.rpartition(":")[0])

    @property
    def is_builtin(self) -> bool:
        """Whether it comes with the program."""
        return self.path.parent == Path(__file__).parent


@contextmanager
def own_code(family: Family, name: str) -> Iterator[None]:
    """Inside, where the family's function `name` runs, its error is a `UserError` with the line of its file.

    An error of a built-in family is a bug, and stays as it is.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if family.is_builtin or "memory" in str(error):  # torch has no type of its own for a lack of it on the CPU
            raise
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(family.path)]
        where = f"{family.path}:{lines[-1]}" if lines else family.where
        raise UserError(f"{where}: {family.name}: {name} ends with {type(error).__name__}: {error}") from error


families: Registry[Family] = Registry("family", from_anywhere=True)


def family(
    *, model_type: str | tuple[str, ...] = (), recognises: Callable[[Config], bool] | None = None, **facts: Any
) -> Callable[[Load], Load]:
    """Declare a family by the function that loads it; its docstring's first line is `NAME: what it is`.

    `facts` are fields of `Family`. Raises `UserError` where the name is taken.
    """

    def decorate(load: Load) -> Load:
        code = load.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        model_types = (model_type,) if isinstance(model_type, str) else tuple(model_type)
        if not model_types and recognises is None:
            raise UserError(f"{where}: @family needs model_type= or recognises=", BAD_USAGE)
        unknown = facts.keys() - Family.__dataclass_fields__.keys()
        if unknown:
            raise UserError(
                f"{where}: @family takes no {min(unknown)}=; docs/own-model.md lists what it takes", BAD_USAGE
            )
        name, _, summary = (load.__doc__ or "").strip().partition("\n")[0].partition(":")
        if not name:
            raise UserError(f"{where}: {load.__name__} needs a docstring that begins with the family's name", BAD_USAGE)
        made = Family(name.strip(), summary.strip(), load, where, model_types, recognises, **facts)
        families.add(made.name, made, where)
        return load

    return decorate


def declared_families() -> tuple[Family, ...]:
    """All families, those of plugins included."""
    return tuple(families.all().values())
