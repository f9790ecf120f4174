"""What `python cli.py models` shows; no torch, and no checkpoint is looked at.

print(family_list())
"""

from collections.abc import Iterable

from voicepatch.models.family import Family


def family_list(families: Iterable[Family]) -> str:
    """The families, each with what is known of it."""
    return "\n\n".join(map(_listed, families))


def _listed(family: Family) -> str:
    lines = [f"{family.name}: {family.summary}" if family.summary else family.name]
    facts = {
        "frames per second": family.frames_per_second and f"{family.frames_per_second:g}",
        "maximum audio length": family.max_audio_length,
        "layers": family.layers,
        "exact engines": " ".join(family.engines),
        "licence": family.licence,
        "hub ids": " ".join(family.hub_ids),
        "plugin": None if family.is_builtin else str(family.path),
    }
    return "\n  ".join(lines + [f"{what:<21} {fact}" for what, fact in facts.items() if fact])
