"""From a data set to clips, and from clips to pairs, with a report.

    dataset = load_dataset("demo/clips")
    sample = build_pairs(dataset.clips, "prosody", max_pairs=100, seed=42, task=dataset.task)
    sample.pairs[0].a, sample.pairs[0].b, sample.pairs[0].target    # recipient, donor, the donor's label

Labels and file paths only: no sound is decoded and no tensor is made.
"""

from pairs.build import build_pairs
from pairs.load import load_dataset
from pairs.numbering import pairs_possible
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset, dataset_hash, dataset_identity
from voicepatch.types.pair import KINDS, Pair, PairSample, pair_row

__all__ = [
    "KINDS",
    "Clip",
    "Dataset",
    "Pair",
    "PairSample",
    "build_pairs",
    "dataset_hash",
    "dataset_identity",
    "load_dataset",
    "pair_row",
    "pairs_possible",
]
