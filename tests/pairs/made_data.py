"""Manifests, sounds and texts of a data set, and the line that a wrong one ends with."""

import json
import re

import numpy as np
import pytest
import soundfile

from pairs import load_dataset
from voicepatch.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
HEADER = "clip_id,path,text_id,text,semantic_label,prosody_label,speaker"
ROWS = (
    "c1,c1.wav,t1,It is noon.,neutral,happy,f1",
    "c2,c2.wav,t1,It is noon.,neutral,sad,f1",
    'c3,c3.wav,t2,"Oh, a gift!",happy,sad,f1',
)


def sound(path, value=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(160, value), 16000)


def manifest(folder, *rows, header=HEADER, newline="\n", encoding="utf-8", name="data.csv"):
    path = folder / name
    path.write_bytes(newline.join([header, *rows, ""]).encode(encoding))
    return path


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def records():
    keys = HEADER.split(",")
    return [dict(zip(keys, row.replace('"', "").replace("Oh, a", "Oh a").split(","), strict=True)) for row in ROWS]


def refused(path, *words, columns=None):
    """The refusal is one line that holds all of `words`."""
    with pytest.raises(UserError) as caught:
        load_dataset(path, columns=columns)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), f"{word!r} not in {message!r}"
