"""EMIS: 104 sentences that carry an emotion, in four emotions of a synthesised voice by three TTS systems.

`01_angry_explicit_happy_0012_COSY.wav`: sentence, emotion of the text and how it is expressed (neutral texts have no
such field), emotion of the voice, the ESD speaker whose voice the system was given, TTS system. The sentence is a row
of one column of `emotion_sentences_dataset.csv`.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.tree import Tree
from pairs.rows import read_rows

TABLE = "emotion_sentences_dataset.csv"


def _spoken(tree: Tree, recordings: Iterable[Recording]) -> Iterator[Recording]:
    texts = _texts(tree)
    for recording in recordings:
        yield replace(recording, text=texts.get(recording.text_id, ""))


def _texts(tree: Tree) -> dict[str, str]:
    """The sentences by text_id, `happy_explicit_01` for the first row of that column; none without the table."""
    path = tree.find(TABLE)
    if path is None:
        return {}
    columns = [f"{emotion}_{kind}" for emotion in ("happy", "sad", "angry") for kind in ("explicit", "implicit")]
    texts = {}
    for number, row in enumerate(read_rows(tree.root / path, (*columns, "neutral")), start=1):
        for column, text in row.values.items():
            texts[f"{column}_{number:02d}"] = text
    return texts


def _edition(tree: Tree, recordings: Collection[Recording]) -> str:
    return f"synthesised by {', '.join(sorted({recording.clip_id.rpartition('_')[2] for recording in recordings}))}"


@corpus(
    name="EMIS",
    title="Emotionally Incongruent Synthetic Speech",
    layout="01_angry_explicit_happy_0012_COSY.wav, and emotion_sentences_dataset.csv",
    licence="none found for the sounds",
    source="https://zenodo.org/records/19207001; the table: https://github.com/AI-Unicamp/SLM-ER-Evaluation",
    full=(Full(1248, 1248, 10, 104, (628, 5_616), (14_673, 146_016)),),
    pattern=r"([0-9]{2})_(?:(angry|happy|sad)_(explicit|implicit)|neutral)_(angry|happy|neutral|sad)"
    r"_(00(?:1[1-9]|20))_(COSY|F5TTS|STYLE)",
    edition=_edition,
    spoken=_spoken,
    words_from=TABLE,
    remark=None,
    notes=("a speaker of EMIS is the ESD speaker whose voice the TTS system was given; a pair may be of two systems",),
)
def recording(found: re.Match[str]) -> Recording:
    number, emotion, text_type, voice, speaker, system = found.groups()
    column = f"{emotion}_{text_type}" if emotion else "neutral"
    return Recording(
        found[0],
        voice,
        f"{column}_{number}",
        speaker,
        semantic_label=emotion or "neutral",
        text_type=text_type,
        columns={"system": system},
    )
