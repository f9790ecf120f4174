"""The declarations of a run's files as Markdown tables, which results/README.md holds.

described(Record)           # | key | type | meaning |

`python -m runs.described` prints them all.
"""

from typing import Any

from msgspec.json import schema

from models.labels import LABELS
from runs.document_types import Experiment
from runs.row_types import FailedPair, Keys, Logits, PairRow, Record

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def described(declared: type[Keys]) -> str:
    """The keys of a declaration in their order, with type and meaning."""
    found = schema(declared)
    known = found["$defs"][declared.__name__]
    lines = ["| key | type | meaning |", "|---|---|---|"]
    for key, value in known["properties"].items():
        absent = "" if key in known["required"] else ", not in every run"
        lines.append(f"| `{key}` | {_type(value)}{absent} | {value.get('description', '')} |")
    return "\n".join(lines)


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(map(_type, value["anyOf"])))
    if "$ref" in value:
        return "label → number" if value["$ref"].endswith(f"/{Logits.__name__}") else "object"
    if "enum" in value:
        return "label" if set(value["enum"]) == set(LABELS) else " or ".join(f"`{one}`" for one in value["enum"])
    if value["type"] == "array":
        return f"list of {_type(value['items'])}"
    if value["type"] == "object":
        return "object"
    return TYPES[value["type"]]


if __name__ == "__main__":
    for declared in (PairRow, Record, FailedPair, Experiment):
        print(f"{declared.__doc__}\n\n{described(declared)}\n")
