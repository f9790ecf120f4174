"""JL-Corpus: fifteen sentences in five primary emotions by four speakers of New Zealand English.

`female1_angry_10a_1.wav`: speaker, emotion, sentence, session, repetition; `female1_angry_10a_1.txt` is its text.
Five secondary emotions have partly other sentences under the same numbers; none of them is a label of the emotion task.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.transcripts import one_text_each
from pairs.corpora.tree import Tree

_PRIMARY = ("neutral", "happy", "sad", "angry", "excited")
_EMOTIONS = (*_PRIMARY, "anxious", "apologetic", "assertive", "concerned", "encouraging")
_TEXTS = (  # of the primary emotions
    "Tom beats that farmer",
    "John laughs like your father",
    "The seed is buried in deep",
    "Taylor likes stewed Asian food",
    "The lord swims in the sea",
    "Jack views an art piece",
    "Carl leaps into a jeep",
    "Linda asks for more darts",
    "Find your boot in this shute",
    "Water harms the new born boy",
    "I have not seen my tooth",
    "Work hard or you lose",
    "Jim saw the port",
    "They should start to talk",
    "Sound the horn if you need more",
)


def _spoken(tree: Tree, recordings: Iterable[Recording]) -> Iterator[Recording]:
    """The text in the file beside a recording replaces that of the list above."""
    found = [
        replace(recording, text=" ".join(tree.text(beside).split()) or recording.text)
        if (beside := f"{recording.path[:-4]}.txt") in tree.files
        else recording
        for recording in recordings
    ]
    # A sentence of a secondary emotion is another one, unless its own file says what it is.
    return one_text_each(
        recording if recording.text else replace(recording, text_id=f"{recording.text_id}-{recording.emotion}")
        for recording in found
    )


@corpus(
    name="JL-Corpus",
    title="JL-Corpus of emotional New Zealand English",
    layout="JL(wav+txt)/female1_angry_10a_1.wav beside female1_angry_10a_1.txt",
    licence="disputed: CC0 1.0 or ODC-By",
    source="https://github.com/tli725/JL-Corpus",
    full=(Full(2400, 960, 4, 15, (5_760, 23_040)),),
    pattern=rf"((?:fe)?male[12])_({'|'.join(_EMOTIONS)})_([0-9]{{1,2}})([ab])_([12])",
    edition="primary emotions",
    spoken=_spoken,
)
def recording(found: re.Match[str]) -> Recording | str:
    speaker, emotion, number, session, repetition = found.groups()
    if not 1 <= int(number) <= len(_TEXTS):
        return "of a sentence that JL-Corpus does not have"
    columns = {"gender": speaker[:-1], "session": session, "repetition": repetition}
    text = _TEXTS[int(number) - 1] if emotion in _PRIMARY else ""
    return Recording(found[0], emotion, f"{int(number):02d}", speaker, text, columns=columns)
