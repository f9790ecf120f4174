"""RAVDESS: two sentences in eight emotions by 24 actors.

`03-01-06-01-02-01-12.wav`: modality (03 sound), channel (01 speech, 02 song), emotion, intensity (01 normal, 02
strong), sentence, repetition, actor (odd numbers are men, even ones women). Kaggle's copy holds every file twice.
"""

import re

from pairs.corpora.corpus import Full, Recording, corpus

_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_TEXTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


@corpus(
    name="RAVDESS",
    title="Ryerson Audio-Visual Database of Emotional Speech and Song",
    layout="Actor_12/03-01-06-01-02-01-12.wav",
    licence="CC BY-NC-SA 4.0",
    source="https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)",
    full=(Full(1440, 864, 24, 2, (6_144, 147_456)),),
    pattern=r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1[0-9]|2[0-4])",
    edition="speech",
)
def recording(found: re.Match[str]) -> Recording | str:
    modality, channel, emotion, intensity, text_id, repetition, actor = found.groups()
    if modality != "03":
        return "sound of a video"
    if channel == "02":
        return "song"
    columns = {
        "gender": "male" if int(actor) % 2 else "female",
        "intensity": "normal" if intensity == "01" else "strong",
        "statement": text_id,
        "repetition": repetition[1],
    }
    return Recording(found[0], _EMOTIONS[emotion], text_id, f"Actor_{actor}", _TEXTS[text_id], columns=columns)
