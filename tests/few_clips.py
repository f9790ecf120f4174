"""A data set of a few clips of the demo.

path = few_clips(tmp_path)                    # 12 clips of 4 texts
"""

import csv

from pairs import load_dataset
from voicepatch.paths import DEMO_DATA

COLUMNS = ("clip_id", "path", "text_id", "text", "semantic_label", "prosody_label", "speaker", "text_type")


def few_clips(folder, n_texts=4, voices=("happy", "sad", "angry")):
    """The path of a manifest of the first texts, each in some voices."""
    clips = [clip for clip in load_dataset(DEMO_DATA).clips if clip.prosody_label in voices]
    texts = sorted({clip.text_id for clip in clips})[:n_texts]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "few.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(clip, name) for name in COLUMNS] for clip in clips if clip.text_id in texts)
    return path
