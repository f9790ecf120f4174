"""A model class of transformers, with the weights of a checkpoint folder: all of them, or an error that names a tensor.

    config = outer_config(folder, Qwen2AudioConfig)
    outer = load_outer(Qwen2AudioForConditionalGeneration, folder, config, device, dtype)
    llm = Decoder(outer.model.language_model, outer.lm_head)

The tensors are read as data: only safetensors, no code of the checkpoint, nothing outside its folder. transformers
renames them (the names on the hub are older than those of its classes); missing, unexpected and misshapen tensors are
named here.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from voicepatch.errors import UserError
from voicepatch.models.adapters import merge_adapter
from voicepatch.models.checkpoint import is_finite, stored_tensors
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.families import family_of
from voicepatch.models.folder import WEIGHTS, parts_of, read_config, refuse_quantised
from voicepatch.models.mel import pooled_length, read_extractor
from voicepatch.models.speech_lm import CausalLM, Prompt
from voicepatch.models.tokens import Tokens, Turn, check_vocabulary, read_prompt

# For each of these, something is made before a shape can be compared.
COUNTS = ("num_hidden_layers", "encoder_layers", "num_layers", "num_blocks", "depth", "num_labels")
MOST_LAYERS = 1000  # where there are no weights to compare a configuration with
UNUSABLE_VALUE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
    ValueError, SafetensorError, StrictDataclassError,
)  # fmt: skip


class Decoder(nn.Module):
    """The interface of `Qwen3ForCausalLM` over a text model and a head, whatever model they are parts of.

    The head's output must be the answer's logits, so one that a model scales or caps afterwards is a module of its own.
    """

    model: PreTrainedModel
    config: PreTrainedConfig

    def __init__(self, text: PreTrainedModel, head: nn.Module):
        super().__init__()
        self.model, self.lm_head, self.config = text, head, text.config

    @property
    def device(self) -> torch.device:
        return self.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.get_input_embeddings().weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def forward(
        self, inputs_embeds: torch.Tensor, past_key_values: Any = None, use_cache: bool = False, logits_to_keep: int = 0
    ) -> CausalLMOutputWithPast:
        """Logits of the last `logits_to_keep` positions, of all for 0; some outer classes swallow this argument."""
        hidden = self.model(
            inputs_embeds=inputs_embeds, past_key_values=past_key_values, use_cache=use_cache
        ).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden[:, -logits_to_keep:]))


class Pretrained:
    """What families share of `SpeechLM` whose model is a class of transformers.

    A family gives `outer_class`, `turn`, and the methods that differ from these, which are those of a Whisper-like
    encoder whose positions are pooled over two.
    """

    outer_class: type[PreTrainedModel]
    turn: Turn
    max_windows: int | None = None  # maximum audio length in windows of the extractor, None for no maximum
    max_samples: int | None = None
    tokenizer: Tokens
    prompt: Prompt
    llm: CausalLM
    encoder: Any
    projector: Any
    _prompt_of: Callable[[str, Sequence[str]], tuple[Tokens, Prompt]]  # of a question and its labels

    def __init__(self, outer: Any, extractor: Any):
        self.llm = Decoder(outer.model.language_model, outer.lm_head)
        self.encoder, self.projector = outer.model.audio_tower, getattr(outer.model, "multi_modal_projector", None)
        self.extractor = extractor
        self.max_samples = extractor and self.max_windows and self.max_windows * extractor.n_samples

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str | None,
        dtype: str | None,
        question: str,
        labels: Sequence[str],
        random_weights: int | None = None,
        adapter: Path | None = None,
    ) -> "Pretrained":
        """The model of a checkpoint folder, with the `adapter` of another folder merged into its weights.

        The small files are read first, because they fail sooner than weights.
        """
        config = cls.read_config(folder)
        extractor = cls.read_features(folder, config)
        prompt_of = partial(cls.read_prompt, folder, config)
        tokens, prompt = prompt_of(question, labels)
        outer = load_outer(cls.outer_class, folder, config, device, dtype, random_weights)
        model = cls(outer, extractor)
        if adapter is not None and random_weights is None:
            merge_adapter(adapter, outer, cast(nn.Module, model.llm))
        model._prompt_of = prompt_of
        return model._with(tokens, prompt)

    def ask(self, question: str, labels: Sequence[str]) -> "Pretrained":
        """The same weights with another question in the prompt."""
        return copy.copy(self)._with(*self._prompt_of(question, labels))

    def _with(self, tokens: Tokens, prompt: Prompt) -> "Pretrained":
        self.tokenizer, self.prompt = tokens, prompt
        check_vocabulary(tokens, self.llm.get_input_embeddings().weight.shape[0])
        return self

    @classmethod
    def without_weights(cls, folder: Path, dtype: torch.dtype) -> "Pretrained":
        """The model on torch's `meta` device, from `config.json` alone: shapes without numbers."""
        config = cls.read_config(folder, has_weights=False)
        with _errors("config.json gives no model"), torch.device("meta"):
            outer = cls.outer_class._from_config(config, dtype=dtype)
        return cls(outer.eval().requires_grad_(False), None)

    @classmethod
    def read_config(cls, folder: Path, has_weights: bool = True) -> Any:
        """`config.json` as `outer_class` reads it, compared with the weights if the folder `has_weights`."""
        read = cls.outer_class.config_class.from_pretrained
        return outer_config(folder, lambda _: read(folder, local_files_only=True), has_weights)

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> Any:
        """The feature extractor of the folder, with the mel bins and the window of the encoder."""
        audio = config.audio_config
        return read_extractor(folder, audio.num_mel_bins, 2 * audio.max_source_positions)

    @classmethod
    def read_prompt(cls, folder: Path, config: Any, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
        """The tokens of the folder, and the prompt in them."""
        return read_prompt(folder, config.audio_token_id, cls.turn, question, labels)

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        return self.llm.get_input_embeddings()(torch.tensor(ids, device=self.llm.device))

    def n_audio(self, n_samples: int) -> int:
        n_samples = min(n_samples, self.max_samples or n_samples)
        return pooled_length(-(-n_samples // self.extractor.hop_length))


def load_outer(
    cls: type[PreTrainedModel],
    folder: Path,
    made_from: Any,
    device: str | None,
    dtype: str | None,
    random_weights: int | None = None,
) -> Any:
    """The class with the checkpoint's weights, in `eval()` mode.

    `made_from` is its `outer_config`. `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and
    float32 elsewhere. With `random_weights`, a seed, the class has weights of its own initialisation instead, which are
    drawn on the processor and so are the same on every device.
    Raises `UserError` for a configuration that gives no such model, weights that are quantised, missing, unexpected or
    misshapen tensors, and values that are not finite.
    """
    target = pick_device(device)
    number_type = pick_dtype(dtype, target)
    config = read_config(folder)
    family = family_of(config)
    stored = stored_tensors(folder, family)
    with ExitStack() as files, _errors("config.json and the weights give no model"):
        opened = {path: files.enter_context(safe_open(path, framework="pt")) for path in sorted(set(stored.values()))}
        # A slice is read when its turn comes, so that memory holds no second copy of the weights.
        tensors = {name: opened[path].get_slice(name) for name, path in stored.items()}
        n_stored = sum(torch.Size(tensor.get_shape()).numel() for tensor in tensors.values())
        _check_size(cls, made_from, n_stored)
        if random_weights is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_weights)
                outer = cls._from_config(made_from, dtype=number_type)
            return outer.to(target).eval().requires_grad_(False)
        if n_stored < 2**28:  # loaded sooner than a bar can be read
            transformers.logging.disable_progress_bar()
        # One tensor after the other: many of them in threads, as by default, need up to a second copy of all experts.
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
        outer, found = cls.from_pretrained(
            None,
            config=made_from,
            state_dict=tensors,
            dtype=number_type,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are errors below, with their names
        )
        check_loaded(folder, outer, found, number_type)
        return outer.to(target).eval().requires_grad_(False)


def outer_config(folder: Path, read: Callable[[dict[str, Any]], Any], has_weights: bool = True) -> Any:
    """The configuration that `read` makes of the content of `config.json`; `UserError` where it cannot be used."""
    config = read_config(folder)
    refuse_quantised(config)
    _check_parts(config, len(stored_tensors(folder, family_of(config))) if has_weights else None)
    with _errors("config.json: cannot be used"):
        made = read(config)
        # How attention and experts are computed is no property of the checkpoint; these also set it in all parts.
        made._attn_implementation = made._experts_implementation = None
        return made


def _check_parts(config: Mapping[str, Any], n_tensors: int | None) -> None:
    limit, known = (
        (MOST_LAYERS, "no model has more than") if n_tensors is None else (n_tensors, "the weights hold only")
    )
    what = "layers" if n_tensors is None else "tensors"
    for part in parts_of(config):
        if (other := part.get("transformers_weights")) not in (None, WEIGHTS):
            raise UserError(f"config.json: transformers_weights names {other!r}; rename the weights to {WEIGHTS}")
        for key in COUNTS:
            if isinstance(part.get(key), int) and part[key] > limit:
                raise UserError(
                    f"config.json: {key} is {part[key]}, but {known} {limit} {what}; take both from one checkpoint"
                )


def _check_size(cls: type, config: Any, n_stored: int) -> None:
    # Before memory is taken for it. A head that is tied to the embeddings is counted, and not stored.
    with torch.device("meta"):
        model = cls(config)
    n_values = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if n_values > 2 * n_stored + 2**24:
        raise UserError(
            f"config.json asks for {n_values:,} values, but the weights hold {n_stored:,}; "
            "take both from one checkpoint"
        )


@contextmanager
def _errors(message: str) -> Iterator[None]:
    """Inside, transformers logs no warnings, and what it raises for a wrong file is one `UserError`."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    except UNUSABLE_VALUE as error:
        if "memory" in str(error):  # torch has no type of its own for a lack of memory on the CPU
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{message} ({reason}); fetch config.json and the weights again, from one checkpoint") from None
    finally:
        transformers.logging.set_verbosity(level)


def check_loaded(folder: Path, outer: nn.Module, found: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Raise `UserError` for tensors that are misshapen, missing or unexpected, and for values that are not finite.

    `found` is the loading information of `from_pretrained`.
    """
    for name, stored, expected in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{folder}: {name} has shape {list(stored)}, but config.json asks for {list(expected)}; "
            "take both from one checkpoint"
        )
    for what, names in (("lacks", found["missing_keys"]), ("has unexpected", found["unexpected_keys"])):
        if names:
            some = sorted(names)
            more = f" and {len(some) - 5} more" if len(some) > 5 else ""
            raise UserError(
                f"{folder}: the checkpoint {what} tensors: {', '.join(some[:5])}{more}; fetch the weights and "
                "config.json again, from one checkpoint"
            )
    for name, tensor in (*outer.named_parameters(), *outer.named_buffers()):
        if tensor.is_floating_point() and not is_finite(tensor.detach()):
            raise UserError(
                f"{folder}: {name} holds values that are not finite, as {str(dtype).removeprefix('torch.')}; "
                "fetch the file again, or pass --dtype bfloat16 or float32"
            )
