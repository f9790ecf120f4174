"""JSON in which a key is there twice is refused, with the place of the second one."""

import json
import re

import pytest

from voicepatch.json_text import parse_json

ONCE = {"a": {"a": 1, "b": ["a", "a", {"a": 'a": {"a": 1'}]}, "b": {"a": 2}, "": None, "\\": "}", '"': "{"}


@pytest.mark.parametrize("indent", [None, 2])
def test_the_same_key_in_different_objects_is_read(indent):
    assert parse_json(json.dumps(ONCE, indent=indent)) == ONCE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 1}', "key 'a' is there twice: line 1 column 10 (char 9)"),
        ('{"a": {"a": 1},\n "b": [{"c": "c\\": {",\n "d": {},\n "c": 2}]}', "key 'c' is there twice: line 4 column 2"),
        ('{"\\u0061" : 1, "a" : {"b": 1}}', "key 'a' is there twice: line 1 column 16"),
        ('{"b": {"a": 1},\n "a": [],\n "b": {"a": 2}}', "key 'b' is there twice: line 3 column 2"),
        ('{"a": 1,\n"a": 2, broken', "Expecting property name"),
        ('{"b": {"a": 1, "a": 2}, broken', "key 'a' is there twice"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_place(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_json(text)
