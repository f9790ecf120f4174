"""A task that asks for the speaker's gender, a manifest for it, and the line that a mistake ends with."""

from contextlib import contextmanager

import pytest

from voicepatch.errors import UserError

GENDER = """\
name: gender
question: "Is the speaker of this audio female or male? Answer with exactly one word: female or male."
labels: [female, male]
voice: gender
words: null
speaker: may_differ
spellings: {f: female, w: female, m: male}
"""


@contextmanager
def refused(*words):
    """The body is refused with one line that holds all of the words."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def write_manifest(folder, header="clip_id,path,text_id,text,gender,speaker", change=lambda row: row):
    """Four clips of two texts by a woman and a man, without sound in them."""
    rows = [
        change([f"c{i}", f"c{i}.wav", f"t{i % 2}", f"Text {i % 2}.", "f" if i < 2 else "m", f"s{i // 2}"])
        for i in range(4)
    ]
    for row in rows:
        (folder / row[1]).write_bytes(b"")
    path = folder / "clips.csv"
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return path
