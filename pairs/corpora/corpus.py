"""What one corpus' module says of it.

CORPUS = Corpus(name="RAVDESS", ..., pattern=re.compile(r"03-0[12]-..."), recording=recording)

def recording(found):               # a match of the pattern against the file's name without .wav
    return Recording(found[0], emotion="happy", text_id="01", text="Kids are talking by the door", speaker="12")
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from pairs.corpora.tree import Tree


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording, as its file's name describes it.

    `clip_id` is the same for every copy of it. `emotion` is an English word: recordings of the five labels are kept,
    the others counted by it. `path`, relative to the corpus, is filled in once the file is known, and `spelling`, the
    word for the emotion, where `emotion` has become a label.
    """

    clip_id: str
    emotion: str
    text_id: str
    speaker: str
    text: str = ""
    semantic_label: str = "neutral"
    language: str = "en"
    text_type: str | None = None
    path: str = ""
    spelling: str = ""


@dataclass(frozen=True)
class Full:
    """Counts of a full download, of one language; pairs are those within speakers and those with any.

    Recordings are counted without further copies, clips are those of the five labels. Measured over
    public lists of the corpus' file names and over its transcripts.
    """

    n_recordings: int
    n_clips: int
    n_speakers: int
    n_texts: int
    prosody: tuple[int, int]
    semantic: tuple[int, int] = (0, 0)
    language: str = "en"


@dataclass(frozen=True)
class Corpus:
    """How a corpus is recognised and read, and where it is to be had.

    `pattern` is matched against the whole of a wav file's name without its suffix, and `recording` says what a match
    means, or in a few words why it is left out. `spoken`, where names do not say the texts, gives the recordings with
    theirs, in the same way; `words_from` is the file to ask for. `ignored` are folders of other files, in lower case.
    `remark` ends the warning that all texts count as neutral, and is None where the corpus labels its texts; `notes`
    are further warnings.
    """

    name: str
    title: str
    layout: str
    licence: str
    source: str
    full: tuple[Full, ...]
    pattern: re.Pattern[str]
    recording: Callable[[re.Match[str]], Recording | str]
    edition: Callable[[Tree, Collection[Recording]], str]
    spoken: Callable[[Tree, Iterable[Recording]], Iterator[Recording | str]] | None = None
    words_from: str = ""
    ignored: frozenset[str] = frozenset()
    remark: str | None = ""
    notes: tuple[str, ...] = ()
