"""Whether the functions of a model give what the program reads (sanity_check_model.json, before any other use of it).

    checks = interface_check(subject, clips)       # of at most two clips, those that can be read

An error in one of the family's own functions is a `UserError` that names the line of the family's file.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from voicepatch.audio.cache import read_sound
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.models.family import own_code
from voicepatch.text import listing
from voicepatch.types.check import Check
from voicepatch.types.clip import Clip

EVAL = "The model is in eval mode"
TOKENS = "The prompt and the labels are tokens of the embeddings"
VECTORS = "embed and encode give vectors that block 0 reads"
ALONE = "The frames of a clip depend on this clip alone"
COUNT = "n_audio gives the number of audio frames"
SPECIAL = re.compile(r"<\|[^<>|\s]+\|>")  # how tokenizers name special tokens
ROUNDING = 16  # in units of the last place of the largest value


def interface_check(subject: Subject, clips: Sequence[Clip]) -> list[Check]:
    """Check the functions of `subject.model` one after the other, up to the first that fails."""
    checks: list[Check] = []
    for check in _checks(subject, clips):
        checks.append(check)
        if not check.passed:
            break
    return checks


def _checks(subject: Subject, clips: Sequence[Clip]) -> Iterator[Check]:
    yield _eval_mode(subject)
    yield _tokens(subject)
    ids = [*subject.model.prompt.before, *subject.model.prompt.after]
    yield from _wrong_vectors(subject, "embed", called(subject, "embed", ids), len(ids))
    waveforms = _waveforms(subject, clips)
    if not waveforms:  # the check of all sounds names the clips that cannot be read
        return
    encoded = []
    for waveform in (*waveforms, waveforms[0]):
        encoded.append(called(subject, "encode", called(subject, "features", waveform.copy())))
        yield from _wrong_vectors(subject, "encode", encoded[-1])
    llm = subject.model.llm
    yield Check(VECTORS, True, f"[n, {llm.config.hidden_size}], {str(llm.dtype).removeprefix('torch.')}, {llm.device}")
    yield _alone(encoded[0], encoded[-1], "after another clip" if len(waveforms) > 1 else "again")
    yield _count(subject, [(len(frames), len(sound)) for frames, sound in zip(encoded, waveforms, strict=False)])


def _waveforms(subject: Subject, clips: Sequence[Clip]) -> list[np.ndarray]:
    """The first two sounds that can be read."""
    found: list[np.ndarray] = []
    for clip in clips:
        with suppress(UserError):
            found.append(np.array(read_sound(clip.path, subject.clips.sounds.max_seconds).waveform))
        if len(found) == 2:
            break
    return found


def called(subject: Subject, name: str, *args: Any) -> Any:
    """What a function of the model gives; `UserError` with the line of the family's file where it raises."""
    with torch.inference_mode(), own_code(subject.family, name):
        return getattr(subject.model, name)(*args)


def _eval_mode(subject: Subject) -> Check:
    parts = {"llm": subject.model.llm} | vars(subject.model)
    for name, part in parts.items():
        for path, module in part.named_modules() if isinstance(part, nn.Module) else ():
            if module.training and _is_random(module):
                where = f"{name}.{path}" if path else name
                return Check(EVAL, False, f"{where} is in training mode, so dropout may be on; call eval() in load")
    return Check(EVAL, True, "no dropout and no batch statistics")


def _is_random(module: nn.Module) -> bool:
    """Whether a module in training mode may compute something else; a plain layer does not."""
    dropout = getattr(module, "p", None) or getattr(module, "dropout", None)
    return isinstance(module, (PreTrainedModel, _BatchNorm)) or (isinstance(dropout, float) and dropout > 0)


def _tokens(subject: Subject) -> Check:
    model = subject.model
    n_rows = model.llm.get_input_embeddings().weight.shape[0]
    labels = [token for asked in subject.asked for token in asked.labels.token_ids]
    ids = {"the prompt": [*model.prompt.before, *model.prompt.after], "a label": labels}
    for what, some in ids.items():
        outside = [token for token in some if not 0 <= token < n_rows]
        if outside:
            text = f"{what} has token {outside[0]}, but the embeddings have rows 0 to {n_rows - 1}"
            return Check(TOKENS, False, f"{text}; take tokenizer and weights from one checkpoint")
    names = set(map(str, model.tokenizer.convert_ids_to_tokens(ids["the prompt"])))
    counts = Counter(SPECIAL.findall(model.prompt.text))
    missing = [name for name in counts if name not in names]
    # The sound's placeholder is in the text, once, and not among the tokens.
    placeholder = [name for name in missing if counts[name] == 1][:1]
    wrong = [name for name in missing if name not in placeholder]
    if wrong:
        text = f"{wrong[0]} of the prompt is no single token; use the checkpoint's own tokenizer, with its added tokens"
        return Check(TOKENS, False, text)
    highest = max((*ids["the prompt"], *labels))
    numbers = {"highest_token": highest, "n_embeddings": n_rows}
    return Check(TOKENS, True, f"tokens up to {highest}, and {n_rows} embeddings", numbers)


def _wrong_vectors(subject: Subject, what: str, found: Any, n: int | None = None) -> Iterator[Check]:
    """The check that fails where a function gives other vectors than `n` of the decoder's; None is any number."""
    llm = subject.model.llm
    shape = f"[{n or 'n_audio'}, {llm.config.hidden_size}]"
    if not isinstance(found, torch.Tensor):
        text = f"gives a {type(found).__name__}, and not a tensor {shape}"
    elif (
        found.dim() != 2
        or found.shape[1] != llm.config.hidden_size
        or len(found) != (n or len(found))
        or not len(found)
    ):
        text = f"gives a tensor of shape {list(found.shape)}, and not {shape}"
    elif (found.dtype, found.device) != (llm.dtype, llm.device):
        text = f"gives {found.dtype} on {found.device}, but the decoder has {llm.dtype} on {llm.device}; use .to(...)"
    else:
        return
    yield Check(VECTORS, False, f"{what} {text}")


def _alone(first: torch.Tensor, again: torch.Tensor, when: str) -> Check:
    if len(first) != len(again):
        text = f"a clip has {len(first)} frames, and encoded {when} {len(again)}"
        return Check(ALONE, False, f"{text}; features and encode must hold nothing of earlier clips")
    difference = (again.float() - first.float()).abs().max().item()
    if difference > ROUNDING * torch.finfo(first.dtype).eps * first.float().abs().max().item():
        text = f"encoded {when}, its frames differ by up to {difference:.2g}"
        return Check(ALONE, False, f"{text}; look for dropout, noise, batches and what is held of earlier clips")
    return Check(ALONE, True, f"encoded {when}, they are the same")


def _count(subject: Subject, lengths: Sequence[tuple[int, int]]) -> Check:
    for n_frames, n_samples in lengths:
        expected = called(subject, "n_audio", n_samples)
        if n_frames != expected:
            text = f"of {n_samples} samples, encode gives {n_frames} frames and n_audio {expected}"
            return Check(COUNT, False, f"{text}; look at what is padded, cut and pooled")
    return Check(COUNT, True, f"{listing([f'{n} of {samples} samples' for n, samples in lengths], 2)}")
