"""Emo-DB: ten German sentences in seven emotions by ten speakers, with the best recordings only.

`wav/03a01Wa.wav`: speaker, sentence, emotion by the first letter of its German name, version.
"""

import re
from collections.abc import Collection

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.tree import Tree

# Wut, Langeweile, Ekel, Angst, Freude, Trauer. F is fear and a is anger in corpora with English names.
_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "joy",
    "T": "sadness",
    "N": "neutral",
}
_TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


_MEN = {"03": "31", "10": "32", "11": "26", "12": "30", "15": "25"}  # speaker -> age
_WOMEN = {"08": "34", "09": "21", "13": "32", "14": "35", "16": "31"}


def _edition(tree: Tree, recordings: Collection[Recording]) -> str:
    return "2.0 (with db.yaml)" if tree.find("db.yaml") else "1.x"


@corpus(
    name="Emo-DB",
    title="Berlin Database of Emotional Speech",
    layout="wav/03a01Wa.wav",
    licence="disputed: CC BY 4.0 or none given",
    source="https://zenodo.org/records/17651657 (emodb_2.0.zip)",
    full=(Full(535, 339, 10, 10, (429, 4_170), language="de"),),
    pattern=r"(03|08|09|1[0-6])([ab][0-9]{2})([WLEAFTN])([a-f])",
    edition=_edition,
)
def recording(found: re.Match[str]) -> Recording | str:
    speaker, text_id, emotion, version = found.groups()
    if text_id not in _TEXTS:
        return "of a sentence that Emo-DB does not have"
    gender, ages = ("male", _MEN) if speaker in _MEN else ("female", _WOMEN)
    columns = {"gender": gender, "age": ages[speaker], "version": version}
    return Recording(found[0], _EMOTIONS[emotion], text_id, speaker, _TEXTS[text_id], language="de", columns=columns)
