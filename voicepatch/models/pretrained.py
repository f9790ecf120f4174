"""A model class of transformers, filled from a checkpoint folder: whole, or refused by name.

    config = outer_config(Qwen2AudioForConditionalGeneration, folder)
    outer = load_outer(Qwen2AudioForConditionalGeneration, folder, config, device, dtype)
    llm = Decoder(outer.model.language_model, outer.lm_head)

The tensors are read as data: safetensors alone, no code of the checkpoint's, nothing outside its folder. transformers
renames them (a hub's names are older than its classes'); what it misses, has too many or finds misshapen is named here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from voicepatch.errors import UserError
from voicepatch.models.adapters import merged
from voicepatch.models.checkpoint import is_finite, stored_tensors
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.families import family_of
from voicepatch.models.folder import WEIGHTS, read_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Tokens, check_vocabulary

# Of each of these, something is made before a shape can be compared.
COUNTS = ("num_hidden_layers", "encoder_layers", "num_layers", "num_blocks", "depth", "num_labels")
UNUSABLE_VALUE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
    StrictDataclassError,
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
    """What the families of transformers' own classes share of `SpeechLM`."""

    max_samples: int | None = None

    def __init__(self, llm: Decoder, tokenizer: Tokens, prompt: Prompt):
        self.llm, self.tokenizer, self.prompt = llm, tokenizer, prompt
        check_vocabulary(tokenizer, llm.get_input_embeddings().weight.shape[0])

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        return self.llm.get_input_embeddings()(torch.tensor(ids, device=self.llm.device))


def load_outer(
    cls: type[PreTrainedModel], folder: Path, made_from: Any, device: str | None, dtype: str | None
) -> PreTrainedModel:
    """The class with the checkpoint's weights, in `eval()` mode; a LoRA that its family has is merged into them.

    `made_from` is its `outer_config`.

    Raises `UserError` for a configuration that gives no such model, weights that are quantised, missing, unexpected or
    misshapen tensors, values that are not finite, and where the device has too little memory.
    """
    target = pick_device(device)
    number_type = pick_dtype(dtype, target)
    config = read_config(folder)
    family = family_of(config)
    stored = stored_tensors(folder, family)
    n_bytes = sum(tensor.n_bytes for tensor in stored.values())
    with ExitStack() as files, _faults(target, n_bytes):
        tensors: dict[str, Any] = {}
        for path in sorted({tensor.path for tensor in stored.values()}):
            file = files.enter_context(safe_open(path, framework="pt"))
            # A slice is read when its turn comes, so that memory holds no second copy of the weights.
            tensors |= {name: file.get_slice(name) for name, tensor in stored.items() if tensor.path == path}
        if family.adapter is not None:
            tensors |= merged(folder, family.adapter, config, tensors)
        _check_size(cls, made_from, sum(torch.Size(tensor.shape).numel() for tensor in stored.values()))
        outer, found = cls.from_pretrained(
            None,
            config=made_from,
            state_dict=tensors,
            dtype=number_type,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
        )
        _check(folder, outer, found, number_type)
        if target.type == "cpu":
            _unmap(outer)
        return outer.to(target).eval().requires_grad_(False)


def _unmap(model: nn.Module) -> None:
    """Copy every weight into memory of its own: what needed no other dtype is still the file's, mapped.

    The file may be written over, or cut, while the model runs.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def outer_config(cls: type[PreTrainedModel], folder: Path) -> Any:
    """`config.json` as the class reads it, from whatever part of it is its own."""
    config = read_config(folder)
    _check_plain(config)
    _check_counts(config, len(stored_tensors(folder, family_of(config))))
    try:
        with _quiet():
            made = cls.config_class.from_pretrained(folder, local_files_only=True)
        # How attention and experts are computed is no property of the checkpoint; these also set it in all parts.
        made._attn_implementation = made._experts_implementation = None
        return made
    except UNUSABLE_VALUE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"config.json: cannot be used ({reason}); fetch the file again") from None


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _check_plain(config: Mapping[str, Any]) -> None:
    for part in _parts(config):
        if part.get("quantization_config") is not None:
            raise UserError("config.json has a quantization_config; take a checkpoint with float or bfloat16 weights")
        if (other := part.get("transformers_weights")) not in (None, WEIGHTS):
            raise UserError(f"config.json: transformers_weights names {other!r}; rename the weights to {WEIGHTS}")


def _check_counts(config: Mapping[str, Any], n_tensors: int) -> None:
    for part in _parts(config):
        for key in COUNTS:
            if isinstance(part.get(key), int) and part[key] > n_tensors:
                raise UserError(
                    f"config.json: {key} is {part[key]}, but the weights hold only {n_tensors} tensors; "
                    "take both from one checkpoint"
                )


def _check_size(cls: type, config: Any, n_stored: int) -> None:
    # Before memory is taken for it. A head that is tied to the embeddings is counted, and not stored.
    with torch.device("meta"):
        model = cls(config)
    n_asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if n_asked > 2 * n_stored + 2**24:
        raise UserError(
            f"config.json asks for {n_asked:,} values, but the weights hold {n_stored:,}; take both from one checkpoint"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what it would report is an error of ours
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


@contextmanager
def _faults(device: torch.device, n_bytes: int) -> Iterator[None]:
    bars = transformers.logging.is_progress_bar_enabled()
    if n_bytes < 2**30:
        transformers.logging.disable_progress_bar()
    try:
        with _quiet():
            yield
    except UserError:
        raise
    except (*UNUSABLE_VALUE, MemoryError, SafetensorError, OSError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error):
            raise UserError(
                f"--device {device}: too little memory for {n_bytes / 1e9:.1f} GB of weights; "
                "free some, or take --dtype bfloat16 or another device"
            ) from None
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"config.json and the weights give no model ({reason}); fetch both again, from one checkpoint"
        ) from None
    finally:
        if bars:
            transformers.logging.enable_progress_bar()


def _check(folder: Path, outer: nn.Module, found: Mapping[str, Any], dtype: torch.dtype) -> None:
    for name, there, asked in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{folder}: {name} has shape {list(there)}, but config.json asks for {list(asked)}; "
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
    for name, tensor in outer.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not is_finite(tensor.detach()):
            raise UserError(
                f"{folder}: {name} holds values that are not finite, as {str(dtype).removeprefix('torch.')}; "
                "fetch the file again, or pass --dtype bfloat16 or float32"
            )
