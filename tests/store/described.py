"""The declarations of a run's files as Markdown tables, which results/README.md holds.

described(Record)           # | key | type | meaning |

`python -m tests.store.described` prints all of them.
"""

from typing import Any

from msgspec.json import schema

from voicepatch.store.documents import Experiment
from voicepatch.types.record import FailedPair, answer_type, pair_row_type, record_type

LABELS = ("label", "other label")  # stand for those of any task
TABLES = {
    "PairRow": pair_row_type(LABELS),
    "Record": record_type(LABELS),
    "AnswerRow": answer_type(LABELS),
    "FailedPair": FailedPair,
    "Experiment": Experiment,
}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def described(declared: Any) -> str:
    """The keys of a declaration in their order, with type and meaning."""
    found = schema(declared)
    known = found["$defs"][found["$ref"].rpartition("/")[2]]
    lines = ["| key | type | meaning |", "|---|---|---|"]
    for key, value in known["properties"].items():
        absent = "" if key in known["required"] else ", not in every run"
        lines.append(f"| `{key}` | {_type(value)}{absent} | {value.get('description', '')} |")
    return "\n".join(lines)


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(map(_type, value["anyOf"])))
    if "$ref" in value:
        return "label → number" if value["$ref"].endswith("/Logits") else "object"
    if "enum" in value:
        return "label" if set(value["enum"]) == set(LABELS) else " or ".join(f"`{one}`" for one in value["enum"])
    if value["type"] == "array":
        return f"list of {_type(value['items'])}"
    return "object" if value["type"] == "object" else TYPES[value["type"]]


if __name__ == "__main__":
    for name, declared in TABLES.items():
        print(f"{name}\n\n{described(declared)}\n")
