"""Text of the data inside the one line of an error or warning, and file names as they are compared.

    raise row.error(f"clip_id {short_repr(clip_id)} is already in row 2")
    warnings.append(f"folder {escape(folder.name)} is ignored")

A value may hold line breaks, control characters or a thousand letters; the line stays readable.
"""

import re
import reprlib
import unicodedata
from collections.abc import Iterable

from voicepatch.errors import printable

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_OF_A_NAME = 160
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def escape(name: object) -> str:
    """A name as it is, but for what cannot be printed, which is escaped, and the middle of a very long one."""
    text = str(name)
    if len(text) > _MOST_OF_A_NAME:
        text = f"{text[: _MOST_OF_A_NAME // 2]}...{text[-_MOST_OF_A_NAME // 2 :]}"
    return printable(text)


def short_repr(value: object) -> str:
    """A value in Python's quotes and escapes, its middle left out where it is long."""
    return _short.repr(value)


def file_name_part(text: str) -> str:
    """A text as a part of a file's name: other signs than ASCII letters, digits, `.`, `_` and `-` become `-`."""
    return "".join(c if c.isascii() and c.isalnum() or c in "._-" else "-" for c in text)


def listing(names: Iterable[str], most: int = 20) -> str:
    """`a, b, c and 7 more`: the first `most` names."""
    names = list(names)
    return ", ".join(map(escape, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def list_of(items: Iterable[str], last: str = "and") -> str:
    """The items in words, as `a, b and c`; "" for none."""
    *first, final = [*items] or [""]
    return f"{', '.join(first)} {last} {final}" if first else final


def counted(n: int, what: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def nfc(text: str) -> str:
    """The text with composed letters (Unicode NFC): file systems and editors disagree on how they write "é"."""
    return unicodedata.normalize("NFC", text)


def for_xml(text: str) -> str:
    """The text with a picture such as ␀ for each control character, and � for what else no SVG or UTF-8 file holds.

    Backslashes would not do: Vega reads some texts as expressions, in which \\x00 is the character again.
    """
    return _NOT_IN_XML.sub(lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\ufffd", text)


def value_text(value: object) -> str:
    """A value of an option as text, a number with as many digits as tell it from every other: 1, 0.5, 0.10000001."""
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)
