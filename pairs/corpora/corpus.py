"""How one corpus is described, by the function that reads a file name of it.

@corpus(name="RAVDESS", pattern=r"03-0[12]-...", title=..., layout=..., licence=..., source=...)
def recording(found):               # a match of the pattern against the file's name without .wav
    return Recording(found[0], emotion="happy", text_id="01", text="Kids are talking by the door", speaker="12")
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pairs.corpora.tree import Tree
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.plugins import Registry


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording, as its file's name describes it.

    `clip_id` is the same for every copy of it. `emotion` is an English word; it is the label of the voice, unless the
    task names one of `columns`, which are further facts such as gender. Recordings whose label is one of the task's are
    used, the others are counted by it. `path`, relative to the corpus, is filled in once the file is known.
    """

    clip_id: str
    emotion: str
    text_id: str
    speaker: str
    text: str = ""
    semantic_label: str = "neutral"
    language: str = "en"
    text_type: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    path: str = ""


@dataclass(frozen=True)
class Full:
    """Counts of a full download, of one language; pairs are those within speakers and those with any.

    Recordings are counted without further copies, clips are those of the emotion task's labels. Measured over
    public lists of the corpus' file names and over its transcripts.
    """

    n_recordings: int
    n_clips: int
    n_speakers: int
    n_texts: int
    prosody: tuple[int, int]
    semantic: tuple[int, int] = (0, 0)
    language: str = "en"


Parse = Callable[[re.Match[str]], Recording | str]


@dataclass(frozen=True)
class Corpus:
    """How a corpus is recognised and read, and where to get it.

    `pattern` must match all of a wav file's name without its suffix, and `recording` says what a match
    means, or in a few words why it is left out. `edition` is a text, or a function that finds it. `spoken`, where names
    do not give the texts, gives the recordings with theirs, in the same way; `words_from` is the file to ask for.
    `speakers` gives further columns of each speaker, which a file of the corpus has, and `speakers_from` is the file to
    ask for. `ignored` are folders of other files, in lower case. `remark` ends the warning that all texts count as
    neutral, and is None where the corpus labels its texts; `notes` are further warnings. `where` is where `recording`
    is.
    """

    name: str
    pattern: re.Pattern[str]
    recording: Parse
    where: str
    title: str = ""
    layout: str = ""
    licence: str = ""
    source: str = ""
    full: tuple[Full, ...] = ()
    edition: str | Callable[[Tree, Collection[Recording]], str] = ""
    spoken: Callable[[Tree, Iterable[Recording]], Iterator[Recording | str]] | None = None
    words_from: str = ""
    speakers: Callable[[Tree], Mapping[str, Mapping[str, str]]] | None = None
    speakers_from: str = ""
    ignored: frozenset[str] = frozenset()
    remark: str | None = ""
    notes: tuple[str, ...] = ()


corpora: Registry[Corpus] = Registry("corpus", from_anywhere=True)


def corpus(*, name: str, pattern: str, **facts: Any) -> Callable[[Parse], Parse]:
    """Let `--data` recognise a corpus, by the function that reads its file names; `facts` are fields of `Corpus`.

    Raises `UserError` where the name is taken, and for a pattern that is no regular expression.
    """

    def decorate(recording: Parse) -> Parse:
        code = recording.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        unknown = facts.keys() - {one.name for one in fields(Corpus)}
        if unknown:
            raise UserError(f"{where}: @corpus takes no {min(unknown)}=; docs/corpora.md has what it takes", BAD_USAGE)
        try:
            made = Corpus(name, re.compile(pattern), recording, where, **facts)
        except re.error as error:
            raise UserError(f"{where}: pattern= is no regular expression ({error})", BAD_USAGE) from None
        corpora.add(name, made, where)
        return recording

    return decorate


def declared_corpora() -> tuple[Corpus, ...]:
    """All corpora, those of plugins included."""
    return tuple(corpora.all().values())
