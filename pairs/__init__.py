"""What is compared: a data set becomes clips, clips become pairs, and a report says how.

    dataset = load_dataset("demo/clips")
    sample = build_pairs(dataset.clips, "prosody", max_pairs=100, seed=42, task=dataset.task)
    sample.pairs[0].a, sample.pairs[0].b, sample.pairs[0].target    # recipient, donor, the donor's label

Labels and file paths only: no sound is decoded here and no tensor made.
"""

from pairs.build import build_pairs, pairs_possible
from pairs.load import AUDIO_EXTENSIONS, load_dataset
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset, dataset_hash, dataset_identity
from voicepatch.types.pair import KINDS, Pair, PairSample, construction_report, pair_row, pairs_from_rows

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
    "pair_row",
    "pairs_from_rows",
    "pairs_possible",
]
