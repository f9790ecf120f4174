"""What is a sample: the texts of the pairs, and their speakers where the data name enough of them.

    sample = sample_of(pairs)                    # of one experiment
    sample = sample_of(pairs, other_pairs)       # of two together; rows in the same order
    sample.sharing                               # for means and their errors (`clusters.mean_of`)
    speakers_note(pairs)                         # "95 % intervals and tests hold for these 2 speakers"

All intervals and tests take their samples from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from voicepatch.analysis.sharing import Sharing, codes_of, texts_of

ENOUGH_SPEAKERS = 8  # with fewer, the speakers are fixed: the result holds for these and not for others
# With fewer texts no p can be below 0.05 (2^(1 − texts)), and limits do not cover (docs/statistics.md).
MIN_TEXTS = 6


@dataclass(frozen=True)
class Sample:
    """The texts of each row, and its speakers where they are a sample, as names of A's and B's side, [rows, 2].

    `speakers` is None where they are fixed. `named` are all speakers that the rows name.
    """

    texts: np.ndarray
    speakers: np.ndarray | None
    named: frozenset[str]

    @property
    def n_speakers(self) -> int:
        """How many speakers count as a sample; 0 where they are fixed."""
        return 0 if self.speakers is None else len(self.named)

    @property
    def sharing(self) -> Sharing:
        """Which rows share texts, or speakers where they are a sample."""
        return Sharing.of(codes_of(self.texts if self.speakers is None else np.hstack([self.texts, self.speakers])))

    def rows(self, which: slice) -> "Sample":
        """Some of the rows, with the same texts and speakers as a sample."""
        speakers = None if self.speakers is None else self.speakers[which]
        return Sample(self.texts[which], speakers, self.named)


def sample_of(*tables: pd.DataFrame, within: Sequence[str] = ()) -> Sample:
    """The sample of the rows of pair lists together; equal names are the same only `within` the same data set."""
    texts, speakers, named = [], [], set()
    for pairs, data in zip(tables, within or [""] * len(tables), strict=True):
        texts.append(np.char.add(f"text {data} ", texts_of(pairs).astype(str)))
        names = _speakers_of(pairs)
        missing = pd.isna(names)
        full = np.char.add(f"speaker {data} ", names.astype(str))
        named |= set(full[~missing])
        speakers.append(np.where(missing, texts[-1], full))  # the pair has its text already
    are_sample = len(named) >= ENOUGH_SPEAKERS
    return Sample(np.vstack(texts), np.vstack(speakers) if are_sample else None, frozenset(named))


def too_few_texts(texts: np.ndarray, what: str = "an interval", needed: int = MIN_TEXTS) -> str:
    """Why rows with these texts, [rows, texts a row], are too few for an interval or a test; "" where they are not."""
    if not len(texts):
        return "there is no pair"
    codes = codes_of(texts)
    counts = np.bincount(codes[codes >= 0])
    if len(counts) < needed:
        return f"{what} needs {needed} texts, and there {'are' if len(counts) > 1 else 'is'} {len(counts)}"
    return "one text is in all pairs" if counts.max() == len(texts) else ""


def speakers_note(*tables: pd.DataFrame) -> str:
    """For which speakers the intervals of some pairs hold, where that is not for speakers in general; else ""."""
    names = np.vstack([_speakers_of(pairs) for pairs in tables])
    there, texts = ~pd.isna(names), np.vstack([texts_of(pairs) for pairs in tables])
    spoken = set(zip(texts[there].astype(str), names[there].astype(str), strict=True))
    n_speakers, n_texts = (len({one[part] for one in spoken}) for part in (1, 0))
    if n_speakers == n_texts == len(spoken) > 1:
        return "each text has a speaker of its own, so effects of texts and of speakers cannot be told apart"
    if not 0 < n_speakers < ENOUGH_SPEAKERS:
        return ""
    return f"95 % intervals and tests hold for {'this speaker' if n_speakers == 1 else f'these {n_speakers} speakers'}"


def _speakers_of(pairs: pd.DataFrame) -> np.ndarray:
    """The recipient's and the donor's speaker of each pair, [pairs, 2]; None where the data name none."""
    names = pairs.reindex(columns=["speaker_a", "speaker_b"]).to_numpy(object)
    return np.where(pd.isna(names) | (names == ""), None, names)
