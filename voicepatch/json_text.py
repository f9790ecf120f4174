"""JSON in which each key of an object stands once.

parse_json('{"seed": 1, "seed": 2}')    # ValueError: key 'seed' is there twice: line 1 column 13 (char 12)
"""

import json
import re
import reprlib
from typing import Any

_KEY_OR_BRACE = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]')


def parse_json(text: str) -> Any:
    """The value that a JSON text holds; `ValueError` for other text, and for a key that is there twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except KeyError:
        raise _repeated_key(text) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyError
    return found


def _repeated_key(text: str) -> json.JSONDecodeError:
    keys: list[set[str]] = []  # those of each object that is open
    for token in _KEY_OR_BRACE.finditer(text):
        if token[0] == "{":
            keys.append(set())
        elif token[0] == "}":
            keys.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key in keys[-1]:
                return json.JSONDecodeError(f"key {reprlib.repr(key)} is there twice", text, token.start())
            keys[-1].add(key)
    raise AssertionError("no key is there twice")
