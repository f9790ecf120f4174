"""ESD: 350 sentences in five emotions by ten speakers of English and 350 others by ten speakers of Mandarin.

`0011/Angry/0011_000351.wav`, in the old edition `0011/Angry/train/0011_000351.wav`; `0011/0011.txt` is the transcript.
The number gives emotion and sentence. The texts are nearly parallel: a text that a speaker changed has its own text_id.
"""

import io
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from pairs.corpora.corpus import Full, Recording, corpus
from pairs.corpora.transcripts import one_text_each
from pairs.corpora.tree import Tree
from voicepatch.errors import UserError
from voicepatch.types.task import default_task

_EMOTIONS = ("neutral", "angry", "happy", "sad", "surprised")  # in the order of their numbers
_IN_MANDARIN = {"中立": "neutral", "生气": "angry", "快乐": "happy", "伤心": "sad", "惊喜": "surprised"}
_N_TEXTS = 350
_LANGUAGES = {"en": "English", "zh": "Mandarin"}


def _spoken(tree: Tree, recordings: Iterable[Recording]) -> Iterator[Recording | str]:
    lines: dict[str, tuple[str, str | None]] = {}
    read: set[str] = set()
    spoken = []
    for recording in recordings:
        if recording.speaker not in read:
            read.add(recording.speaker)
            lines |= _transcript(tree, recording.speaker)
        text, emotion = lines.get(recording.clip_id, ("", ""))
        if not text:
            yield "without a line in the transcript"
        elif {emotion, *_emotions_of(recording.path.rpartition("/")[0])} - {None, "", recording.emotion}:
            yield "of another emotion by folder or transcript than by number"
        else:
            spoken.append(replace(recording, text=text))
    yield from one_text_each(spoken)


def _transcript(tree: Tree, speaker: str) -> dict[str, tuple[str, str | None]]:
    """Text and emotion by clip_id, from lines such as `0011_000351<TAB>The nine the eggs, I keep.<TAB>Angry`."""
    path = tree.find(f"{speaker}.txt")
    if path is None:
        raise UserError(
            f"{tree.root}: the download is incomplete: speaker {speaker} has sounds but no transcript {speaker}.txt; "
            f"put {speaker}.txt into the speaker's folder"
        )
    lines = {}
    for line in io.StringIO(tree.text(path), newline=None):
        # In the old edition some lines have a blank in place of the first tab.
        words, _, emotion = line.strip().rpartition("\t")
        clip_id, *text = words.split(None, 1)[:2] or [""]
        if text:
            lines[clip_id] = (text[0].strip(), _IN_MANDARIN.get(emotion.strip()) or default_task().label_of(emotion))
    if not lines:
        raise UserError(
            f"{tree.root / path}: no line reads as `{speaker}_000351<TAB>text<TAB>emotion`; put ESD's own file back"
        )
    return lines


@lru_cache(maxsize=4096)
def _emotions_of(folder: str) -> frozenset[str | None]:
    return frozenset(map(default_task().label_of, folder.split("/")))


def _edition(tree: Tree, recordings: Collection[Recording]) -> str:
    parts = {recording.path.rpartition("/")[0].rpartition("/")[2].lower() for recording in recordings}
    edition = "old edition" if parts & {"train", "test", "evaluation"} else "new edition"
    languages = " and ".join(name for code, name in _LANGUAGES.items() if any(r.language == code for r in recordings))
    return f"{edition}, {languages}"


@corpus(
    name="ESD",
    title="Emotional Speech Dataset",
    layout="0011/Angry/0011_000351.wav, or 0011/Angry/train/0011_000351.wav, and 0011/0011.txt",
    licence="for research only, by a form",
    source="https://github.com/HLTSingapore/Emotional-Speech-Data",
    full=(
        Full(17_500, 17_500, 10, 350, (34_380, 340_332), language="en"),
        Full(17_500, 17_500, 10, 350, (34_528, 344_455), language="zh"),
    ),
    pattern=r"(00(?:0[1-9]|1[0-9]|20))_([0-9]{6})",
    edition=_edition,
    spoken=_spoken,
    ignored=frozenset({"processed", "combined"}),  # speechbrain's recipe writes trimmed and joined clips there
    remark="though some, such as “How I hate this foul pool!”, are not",
)
def recording(found: re.Match[str]) -> Recording | str:
    speaker, number = found[1], int(found[2]) - 1
    if not 0 <= number < _N_TEXTS * len(_EMOTIONS):
        return "of a number that ESD does not have"
    language = "zh" if speaker <= "0010" else "en"
    text_id = f"{language}{number % _N_TEXTS + 1:03d}"
    return Recording(found[0], _EMOTIONS[number // _N_TEXTS], text_id, speaker, language=language)
