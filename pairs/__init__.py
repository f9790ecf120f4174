"""What is compared: a data set becomes clips, clips become pairs, and a report says how.

    dataset = load_dataset("demo/clips")
    sample = build_pairs(dataset.clips, "prosody", max_pairs=100, seed=42)
    sample.pairs[0].a, sample.pairs[0].b, sample.pairs[0].target    # recipient, donor, the donor's label

Labels and file paths only: no sound is decoded here and no tensor made.
"""

from pairs.build import (
    KINDS,
    Pair,
    PairSample,
    build_pairs,
    construction_report,
    pair_row,
    pairs_from_rows,
    pairs_possible,
)
from pairs.clips import Clip, Dataset, dataset_hash, dataset_identity
from pairs.load import AUDIO_EXTENSIONS, load_dataset
from pairs.normalise import normalise_label

__all__ = [
    "AUDIO_EXTENSIONS",
    "KINDS",
    "Clip",
    "Dataset",
    "Pair",
    "PairSample",
    "build_pairs",
    "construction_report",
    "dataset_hash",
    "dataset_identity",
    "load_dataset",
    "normalise_label",
    "pair_row",
    "pairs_from_rows",
    "pairs_possible",
]
