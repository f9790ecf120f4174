"""YAML files of the user: small, safe, and with each number as it looks.

read_yaml(path, "--config")         # {"max_pairs": 20}; `UserError` names the option and the file
"""

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from voicepatch.errors import BAD_USAGE, UserError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 10
MAX_VALUE = 3000  # characters; Python prints no whole number of over 4300 digits
# To YAML 1.1, 010 is 8, 1:30 is 90 and 1_0 is 10.
ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-9]{1,2})+(\.[0-9_]*)?|[0-9]+_[0-9_]*)")


def read_yaml(path: Path, option: str, example: str) -> dict[str, Any]:
    """The mapping in a file; `example` names the file that shows how one is written.

    Raises `UserError` for an unreadable file, invalid YAML, a key that is there twice, and what is no mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path}: cannot be read ({error}); name a YAML file", BAD_USAGE) from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{option} {path}: is too long; see {example}", BAD_USAGE)
    try:
        content = yaml.load(text, _Loader)
    # A value can claim a type that it is not of (!!int x), which PyYAML leaves to Python's own errors.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{option} {path}: is not valid YAML ({line[:160]}); see {example}", BAD_USAGE) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{option} {path}: should hold `key: value` lines; see {example}", BAD_USAGE)
    return content


class _Loader(yaml.SafeLoader):
    """Reads no value that is easily taken for another one, or that no memory holds."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        # A few aliases of aliases are a value that no memory holds; PyYAML takes minutes for thousands of brackets.
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases; write each value out")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_VALUE:
            raise yaml.YAMLError("a value in it is far too long")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and ODD_NUMBER.fullmatch(event.value):
            raise yaml.YAMLError(f"{event.value} is another number in YAML than it reads; write it in plain digits")
        if self.depth == MAX_DEPTH:
            raise yaml.YAMLError("its values are nested too deeply")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        found = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {reprlib.repr(key.value)} is there twice; keep one of them")
            found.add(key.value)
        return super().construct_mapping(node, deep)
