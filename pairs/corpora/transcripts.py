"""Sentences that are numbered by the corpus but not always spoken as written.

list(one_text_each(recordings))         # those of number 17 with other words get text_ids of their own
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from pairs.corpora.corpus import Recording


def one_text_each(recordings: Iterable[Recording]) -> Iterator[Recording]:
    """The recordings such that one text_id is one text in one spelling.

    Of the recordings with one text_id, those with the most frequent text keep it; each other text gets a text_id with a
    number behind, the most frequent first. Case and punctuation do not tell texts apart. A text that is the most
    frequent one without its first word counts as that one: ESD's new edition lacks the word in the transcript, not in
    the sound.
    """
    groups: defaultdict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.text_id].append(recording)
    for text_id, group in groups.items():
        counts = Counter(_words(recording.text) for recording in group)
        # Between equally frequent texts the longer one, so that none is taken for its own shortened form.
        ranked = sorted(counts, key=lambda words: (-counts[words], -len(words), words))
        shortened = ranked[0].partition(" ")[2]
        ranked = [ranked[0], *(words for words in ranked[1:] if words != shortened)]
        names = {words: f"{text_id}-{i}" if i > 1 else text_id for i, words in enumerate(ranked, start=1)}
        names.setdefault(shortened, text_id)
        spellings = {words: _spelling(words, group) for words in ranked}
        spellings.setdefault(shortened, spellings[ranked[0]])
        for recording in group:
            words = _words(recording.text)
            yield replace(recording, text_id=names[words], text=spellings[words])


def _spelling(words: str, group: list[Recording]) -> str:
    counts = Counter(recording.text for recording in group if _words(recording.text) == words)
    return min(counts, key=lambda text: (-counts[text], text))


@lru_cache(maxsize=65536)  # thousands of recordings share some hundred texts
def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]|_", "", text.casefold()).split())
