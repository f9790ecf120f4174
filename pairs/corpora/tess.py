"""TESS: "Say the word …" with 200 words in seven emotions by two speakers.

`OAF_back_ps.wav`: speaker, word, emotion. Kaggle's copy holds every file twice and calls one speaker OA in one name.
"""

import re
from collections.abc import Collection

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.tree import Tree

_AGES = {"OAF": "64", "YAF": "26"}  # an older and a younger adult female


def _edition(tree: Tree, recordings: Collection[Recording]) -> str:
    folders = {recording.path.rpartition("/")[0] for recording in recordings}
    return "a folder for each speaker and emotion" if len(folders) > 1 else "all files in one folder"


@corpus(
    name="TESS",
    title="Toronto Emotional Speech Set",
    layout="OAF_back_ps.wav, or OAF_Pleasant_surprise/OAF_back_ps.wav",
    licence="CC BY-NC-ND 4.0",
    source="https://doi.org/10.5683/SP2/E8H2MF",
    full=(Full(2800, 2000, 2, 200, (4_000, 8_000)),),
    pattern=r"(OAF|OA|YAF)_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)",
    edition=_edition,
    remark="though some words, such as hate, love or pain, are not",
)
def recording(found: re.Match[str]) -> Recording:
    speaker, word, emotion = found.groups()
    speaker = "OAF" if speaker == "OA" else speaker
    columns = {"gender": "female", "age": _AGES[speaker]}
    return Recording(f"{speaker}_{word}_{emotion}", emotion, word, speaker, f"Say the word {word}", columns=columns)
