"""CREMA-D: twelve sentences in six emotions by 91 actors.

`AudioWAV/1001_DFA_ANG_XX.wav`: actor, sentence, intended emotion, level (LO, MD, HI for one sentence, else XX, which
older copies write X). `VideoDemographics.csv` has the actors' sex and age.
"""

import re

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.tree import Tree
from pairs.rows import read_rows

_EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_TEXTS = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}


_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
TABLE = "VideoDemographics.csv"


def _speakers(tree: Tree) -> dict[str, dict[str, str]]:
    """Gender and age of each actor, from the table that lies beside the clips in a full download."""
    path = tree.find(TABLE)
    rows = read_rows(tree.root / path, ("ActorID", "Age", "Sex")) if path else ()
    found = {row.required("ActorID"): {"gender": row.values["Sex"].lower(), "age": row.values["Age"]} for row in rows}
    return {actor: {column: value for column, value in one.items() if value} for actor, one in found.items()}


@corpus(
    name="CREMA-D",
    title="Crowd-sourced Emotional Multimodal Actors Dataset",
    layout="AudioWAV/1001_DFA_ANG_XX.wav",
    licence="ODbL 1.0 and DbCL 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS)",
    full=(Full(7442, 4900, 91, 12, (9_258, 840_858)),),
    pattern=r"(10[0-8][0-9]|109[01])_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)",
    edition="intended emotions",
    speakers=_speakers,
    speakers_from=TABLE,
)
def recording(found: re.Match[str]) -> Recording | str:
    actor, text_id, emotion, level = found.groups()
    if text_id not in _TEXTS:
        return "of a sentence that CREMA-D does not have"
    level = "XX" if level == "X" else level
    clip_id = f"{actor}_{text_id}_{emotion}_{level}"
    return Recording(
        clip_id, _EMOTIONS[emotion], text_id, actor, _TEXTS[text_id], columns={"intensity": _LEVELS[level]}
    )
