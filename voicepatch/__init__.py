"""Causal experiments on speech language models.

    from voicepatch import build_pairs, intervention, load_dataset, load_subject, run_table

    subject = load_subject("demo/opens2s-demo")
    pairs = build_pairs(load_dataset("demo/synthetic-clips").clips, "prosody").pairs
    table = run_table(subject, my_experiment, pairs)         # a frame, one row a pair and layer

Each name is imported when it is first used, so that help does not wait for torch.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "Pair": "voicepatch.types.pair",
    "Prompt": "voicepatch.models.speech_lm",
    "Task": "voicepatch.types.task",
    "Turn": "voicepatch.models.tokens",
    "answers_of": "voicepatch.runs.unpatched",
    "build_pairs": "pairs",
    "corpus": "pairs.corpora.corpus",
    "family": "voicepatch.models.family",
    "intervention": "voicepatch.registry.intervention",
    "load_dataset": "pairs",
    "load_module": "voicepatch.models.building_blocks",
    "load_subject": "voicepatch.engine.subject",
    "load_task": "voicepatch.types.task",
    "log_mel": "voicepatch.models.mel",
    "merge_adapter": "voicepatch.models.adapters",
    "metric": "voicepatch.registry.metrics",
    "read_extractor": "voicepatch.models.mel",
    "read_prompt": "voicepatch.models.tokens",
    "run_table": "voicepatch.runs.pair_loop",
    "whisper_states": "voicepatch.models.building_blocks",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
