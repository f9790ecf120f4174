"""Words of the data inside the one line of an error or warning.

    raise row.error(f"clip_id {quoted(clip_id)} is already in row 2")
    warnings.append(f"folder {shown(folder.name)} is ignored")

A value may hold line breaks, control characters or a thousand letters; the line stays one that can be read.
"""

import reprlib

from errors import printable

_MOST_OF_A_NAME = 160
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def shown(name: object) -> str:
    """A name as it is, but for what cannot be printed, which is escaped, and the middle of a very long one."""
    text = str(name)
    if len(text) > _MOST_OF_A_NAME:
        text = f"{text[: _MOST_OF_A_NAME // 2]}...{text[-_MOST_OF_A_NAME // 2 :]}"
    return printable(text)


def quoted(value: object) -> str:
    """A value in Python's quotes and escapes, its middle left out where it is long."""
    return _short.repr(value)
