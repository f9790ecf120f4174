"""What the model answers to each clip when nothing is patched, and what these answers follow.

clips = answered_clips(run, config)                 # answers.csv: one row a clip
table = what_answers_follow(clips, labels)          # answers_summary.csv: one row a group of clips and label
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.clusters import RESAMPLES, correlation, limits, mean_of
from voicepatch.analysis.need import VOICE, WORDS
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.sharing import Draws, Sharing
from voicepatch.store.answers import read_answers

SEED = 42  # of the resamples
ALL_TEXTS = "all"
CONFLICT, CONGRUENT = "conflict", "congruent"  # whether the labels of words and voice differ
BOTH, NEITHER = "both", "neither"
FOLLOWED = {CONFLICT: (VOICE, WORDS, NEITHER), CONGRUENT: (BOTH, NEITHER), "": (VOICE, NEITHER)}


def answered_clips(run: Path, config: Mapping[str, Any]) -> pd.DataFrame:
    """The stored answers of a run, sorted by clip_id, in the columns of answers.csv."""
    rows = [
        row | {f"logit_{label}": logit for label, logit in row["logits"].items()}
        for row in read_answers(run, config).values()
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: row["clip_id"])).drop(columns="logits")


def what_answers_follow(clips: pd.DataFrame, labels: Sequence[str], seed: int = SEED) -> pd.DataFrame:
    """The share of answers that follow the voice, the words, both or neither, with 95 % limits by text.

    `clips` has a row a clip with text_id, semantic_label, prosody_label, answer, and text_type and speaker where the
    data have them. There is a group for all texts and for each type of text, in two parts: clips whose labels of words
    and voice differ (`conflict`), and clips where they agree (`congruent`); without labels of the words, in one.
    `chance` is the share that random answers would have.
    """
    clips = clips.sort_values("clip_id")
    follows = _followed(clips)
    cells, values = [], []
    for text_type, congruence, is_in in _groups(clips):
        for followed in FOLLOWED[congruence]:
            n_labels = 1 if followed != NEITHER else len(labels) - (2 if congruence == CONFLICT else 1)
            count = {"n_clips": int(is_in.sum()), "n_texts": clips["text_id"][is_in].nunique()}
            cell = {"text_type": text_type, "congruence": congruence, "follows": followed}
            cells.append(cell | {"chance": n_labels / len(labels)} | count)
            values.append(np.where(is_in, follows == followed, np.nan))
    both_sides = {f"{name}_{side}": clips[name] for name in ("text_id", "speaker") if name in clips for side in "ab"}
    rate, low, high = shares_of(np.column_stack(values), sample_of(pd.DataFrame(both_sides)).sharing, seed)
    table = pd.DataFrame(cells)
    for place, (name, column) in enumerate({"share": rate, "share_low": low, "share_high": high}.items(), start=3):
        table.insert(place, name, column)
    return table


def _followed(clips: pd.DataFrame) -> np.ndarray:
    """What each answer follows."""
    of_voice, of_words = (clips["answer"] == clips[f"{by}_label"] for by in ("prosody", "semantic"))
    return np.select([of_voice & of_words, of_voice, of_words], [BOTH, VOICE, WORDS], NEITHER)


def _groups(clips: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Type of text, congruence, and which clips are in this group; groups without clips are left out."""
    types = {ALL_TEXTS: np.ones(len(clips), bool)}
    if "text_type" in clips and clips["text_type"].notna().any():
        types |= {
            name: (clips["text_type"] == name).to_numpy() for name in sorted(clips["text_type"].dropna().unique())
        }
    has_words = clips["semantic_label"].notna()
    differ = (clips["semantic_label"] != clips["prosody_label"]).to_numpy()
    parts = {CONFLICT: differ, CONGRUENT: ~differ} if has_words.any() else {"": np.ones(len(clips), bool)}
    for text_type, of_type in types.items():
        for congruence, of_part in parts.items():
            if (of_type & of_part).any():
                yield text_type, congruence, of_type & of_part


def shares_of(values: np.ndarray, sharing: Sharing, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of the columns of values [rows, cells], 0, 1 or NaN, and their 95 % limits."""
    mean = mean_of(values, sharing, Draws(sharing.n_codes, RESAMPLES, seed))
    return mean.value, *limits(mean, is_rate=True, pooled=correlation(mean))
