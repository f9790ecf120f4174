"""Every key and value that the declarations of a run's files forbid: one line, status 1, and no figure.

The cases come from the declarations in `types.record` and `store.documents`, so that a new key has its own.
"""

import copy
import json

import pytest
from msgspec.json import schema

from tests.robust.damaged_run.damage import FILES, LINE, ROWS, error_line, rewritten

OTHERS = {
    "integer": ["1", 1.5, None, True, [1], float("nan"), float("inf"), "1e999"],
    "number": ["1", None, True, [1], float("nan"), float("-inf"), "1e999"],
    "boolean": ["true", 1, None],
    "string": [1, ["text"], {}],
    "null": [1],
    "enum": ["another", 1],
    "array": [{}, "text"],
    "object": [[], "text"],
}


def cases(declared):
    """(what is done, path of keys, value or DELETE), for each that the declaration forbids."""
    found = schema(declared)
    yield from _cases(found, found.get("$defs", {}), ())


def outside(kind):
    """The numbers just outside the range of a declared number."""
    if "minimum" in kind:
        yield kind["minimum"] - max(1, abs(kind["minimum"]))
    if "exclusiveMinimum" in kind:
        yield kind["exclusiveMinimum"]
    if "maximum" in kind:
        yield kind["maximum"] * 2


DELETE = "(deleted)"
UNKNOWN = "an_unknown_key"


def _cases(kind, known, path):
    while "$ref" in kind:
        kind = known[kind["$ref"].rpartition("/")[2]]
    name = ".".join(map(str, path))
    if "anyOf" in kind:
        kinds = {one.get("type") for one in kind["anyOf"]}
        if "null" in kinds:
            yield f"{name} is {{}}", path, {}
        for case in _cases(kind["anyOf"][0], known, path):
            if not ("array" in kinds and isinstance(case[2], list)) and not ("null" in kinds and case[2] is None):
                yield case
        return
    if not kind.keys() & {"type", "enum"}:
        return  # whatever an option takes
    for value in OTHERS["enum" if "enum" in kind else kind["type"]] if path else ():
        yield f"{name} is {value!r}", path, value
    for value in outside(kind) if path else ():
        yield f"{name} is {value}, out of its range", path, value
    for key, inner in kind.get("properties", {}).items():
        if key in kind["required"]:
            yield f"{name} lacks {key}", (*path, key), DELETE
        yield from _cases(inner, known, (*path, key))
    if "properties" in kind:
        yield f"{name} has an unknown key", (*path, UNKNOWN), 1
    elif kind.get("type") == "object":
        if kind.get("minProperties"):
            yield f"{name} has a label too few", (*path, 0), DELETE
        yield from _cases(kind.get("additionalProperties", {}), known, (*path, 0))
    if "items" in kind:
        yield from _cases(kind["items"], known, (*path, 0))


def damaged(content, path, value):
    """The content with the value at a path of keys, where 0 is the first; None where it has nothing there."""
    content = copy.deepcopy(content)
    at, steps = content, list(path)
    while True:
        key = steps.pop(0)
        if key == 0 and isinstance(at, dict):
            key = next(iter(at), None)
        if not (key in at or key == UNKNOWN if isinstance(at, dict) else isinstance(key, int) and len(at) > key):
            return None
        if steps:
            at = at[key]
        elif value == DELETE:
            del at[key]
            return content
        else:
            at[key] = value
            return content


CASES = [(file, *case) for file, declared in FILES.items() for case in cases(declared)]


def test_there_are_many_cases():
    assert len(CASES) > 600 and {file for file, *_ in CASES} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_key_or_value_that_the_declaration_forbids_is_an_error(run, intact, drawn, file):
    """One test a file; the cases are tried one after the other, and the message of a failure names the one."""
    lines = (intact / file).read_text(encoding="utf-8").splitlines(keepends=True) if file in ROWS else []
    content = json.loads(lines[LINE - 1] if lines else (intact / file).read_text(encoding="utf-8"))
    tried = 0
    for _, what, path, value in (case for case in CASES if case[0] == file):
        changed = damaged(content, path, value)
        if changed is None or changed == content:
            continue
        text = json.dumps(changed, ensure_ascii=False).replace('"1e999"', "1e999")
        text = "".join([*lines[: LINE - 1], text + "\n", *lines[LINE:]]) if lines else text
        rewritten(run, intact, file, text.encode())
        try:
            error_line(run, drawn, file, LINE if lines else None)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
        tried += 1
    assert tried > 5


ANY_NUMBER = {"ids_in_span"}  # a placeholder's id may be negative


def numbers(kind, name=""):
    """(name of the key, declaration) of every number that a declaration has."""
    if isinstance(kind, list):
        for inner in kind:
            yield from numbers(inner, name)
    elif isinstance(kind, dict):
        if kind.get("type") in ("integer", "number"):
            yield name, kind
        for key, inner in kind.items():
            yield from numbers(inner, name if key in ("items", "anyOf", "additionalProperties") else key)


@pytest.mark.parametrize("file", FILES)
def test_every_number_has_a_range(file):
    for name, kind in numbers(schema(FILES[file])):
        assert name in ANY_NUMBER or {"minimum", "exclusiveMinimum"} & kind.keys(), name
        # A seed may have as many bits as it likes.
        assert name in ANY_NUMBER or "maximum" in kind or name.endswith("seed"), name


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("patching_config.json", ("experiments", "prosody", "pair_sampling_seed"), -1),
        ("patching_records_prosody.jsonl", ("label_mass_patch",), -7),
        ("patching_records_prosody.jsonl", ("label_mass_base",), 1.5),
        ("patching_records_prosody.jsonl", ("stream_shift",), -1e-6),
        ("patching_records_prosody.jsonl", ("logits_patch", "happy"), 1e308),
        ("patching_records_prosody.jsonl", ("n_patched",), 10**30),
        ("sanity_check_engine.json", ("prosody", "tolerance"), -1.0),
    ],
)
def test_an_impossible_number_is_an_error(run, intact, drawn, file, path, value):
    lines = (intact / file).read_text(encoding="utf-8").splitlines(keepends=True) if file in ROWS else []
    content = json.loads(lines[LINE - 1] if lines else (intact / file).read_text(encoding="utf-8"))
    text = json.dumps(damaged(content, path, value), ensure_ascii=False)
    rewritten(run, intact, file, "".join([*lines[: LINE - 1], text + "\n", *lines[LINE:]]).encode())
    error_line(run, drawn, file, LINE if lines else None)
