"""The words of a figure, which stand outside of its picture: in the report, in a text file, in a paper.

    title_of(spec), notes_of(spec)       # "Flip rates by patched layer", ["n = 12 pairs, …", "model …, data …"]
    caption_of(spec)                     # all as sentences

`spec` is the declaration of a chart. `figure_style.styled` puts the words into its `usermeta`.
"""

from collections.abc import Sequence
from typing import Any


def short_title(title: str, caption: str) -> str:
    """What stands above the picture: the title's words before a colon, and the caption.

    "Prosody pairs, random: A random clip is the donor." and "Flip rates by patched layer" give "Prosody pairs, random:
    flip rates by patched layer".
    """
    subject, colon, _ = title.partition(": ")
    if not caption:
        return title
    return f"{subject}: {caption[0].lower()}{caption[1:]}" if colon else caption


def short_title_of(spec: dict[str, Any]) -> str:
    """The title of the picture in one line."""
    return " ".join(_lines(_heading(spec).get("text", [])))


def title_of(spec: dict[str, Any]) -> str:
    """What the figure shows, for a page that names the experiment elsewhere; "" of a chart without a title."""
    about = spec.get("usermeta", {})
    return about.get("caption") or about.get("title") or short_title_of(spec)


def notes_of(spec: dict[str, Any]) -> list[str]:
    """The notes on a figure; of a chart that is not made by `styled`, its subtitle."""
    about = spec.get("usermeta", {})
    return list(about["notes"]) if "notes" in about else _lines(_heading(spec).get("subtitle", []))


def caption_of(spec: dict[str, Any]) -> str:
    """The caption as sentences: what the figure shows, the sentence on the experiment, and the notes."""
    first, title = title_of(spec), spec.get("usermeta", {}).get("title", "")
    parts = dict.fromkeys([first if first.lower() not in title.lower() else title, title, *notes_of(spec)])
    return " ".join(sentence(part) for part in parts if part.strip())


def sentence(text: str) -> str:
    """A note with a capital letter and a full stop; symbols and names, such as n or p_max, keep their first letter."""
    text = text.strip()
    word = text.partition(" ")[0]
    if len(word) > 1 and word.rstrip(",:;").isalpha() and word.islower():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _heading(spec: dict[str, Any]) -> dict[str, Any]:
    heading = spec.get("title", {})
    return heading if isinstance(heading, dict) else {"text": heading}


def _lines(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
