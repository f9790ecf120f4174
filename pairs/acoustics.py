"""How much the two clips of a pair differ in sound, beside the label that must differ.

    clips = clip_table(dataset.clips)                # acoustics.csv
    pair_table(clips, listed)                        # pair_acoustics_KIND.csv
    write_acoustics(run, "prosody", dataset.clips, listed)

A distance is in standard deviations (sd) over the data set's clips. A missing value, such as the pitch of a clip that
is not voiced, gives a missing distance, not 0, and is not in the sd.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from voicepatch.analysis.acoustics import pair_file
from voicepatch.analysis.csv_file import write_table
from voicepatch.audio.acoustics import FEATURES, N_BANDS, Acoustics, measure
from voicepatch.audio.cache import read_sound, sound_facts
from voicepatch.types.clip import Clip

PairNames = tuple[str, str, str]  # pair_id, clip_a, clip_b
BANDS = [f"spectrum_{number}" for number in range(1, N_BANDS + 1)]
_known: dict[str, Acoustics] = {}  # by the sha256 of the file


def clip_table(clips: Sequence[Clip]) -> pd.DataFrame:
    """A row a clip: clip_id, f0 (semitones above 100 Hz), energy (dB), duration (s), and the `BANDS` (dB).

    `UserError` for a clip that cannot be read.
    """
    rows = []
    for clip in tqdm(clips, desc="acoustics", unit="clip", delay=2, leave=False):
        found = _measured(clip.path)
        bands = dict(zip(BANDS, found.spectrum, strict=True))
        rows.append({"clip_id": clip.clip_id, **found._asdict(), **bands})
    return pd.DataFrame(rows).drop(columns="spectrum")


def pair_table(clips: pd.DataFrame, pairs: Sequence[PairNames]) -> pd.DataFrame:
    """A row a pair: pair_id, clip_a, clip_b, and the distance between its clips in each of the `FEATURES`, in sd.

    That of the spectrum is the root of the mean square over the bands, each in its own sd.
    """
    listed = pd.DataFrame(pairs, columns=["pair_id", "clip_a", "clip_b"])
    found = distances(in_sd(clips), listed["clip_a"], listed["clip_b"])
    return listed.assign(**dict(zip(FEATURES, found.T, strict=True)))


def in_sd(clips: pd.DataFrame) -> pd.DataFrame:
    """The columns of `clip_table` by clip_id, each divided by its sd over the clips."""
    values = clips.set_index("clip_id")
    spread = values.std()
    return values / spread.where(spread > 0, 1)  # where all clips are equal, no distance is above 0


def distances(units: pd.DataFrame, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """[pairs, FEATURES] in sd between the clips `a` and `b` of `in_sd`."""
    apart = np.abs(units.loc[a].to_numpy() - units.loc[b].to_numpy())
    n_bands = len(BANDS)
    return np.column_stack([apart[:, :-n_bands], np.sqrt((apart[:, -n_bands:] ** 2).mean(1))])


def _measured(path: Path) -> Acoustics:
    """What is measured of a sound, once a process."""
    sha256 = sound_facts(path).sha256
    if sha256 not in _known:
        sound = read_sound(path)
        assert sound.waveform is not None  # `read_sound` gives sounds with their waveforms
        _known[sha256] = measure(sound.waveform)
    return _known[sha256]


def write_acoustics(
    run: Path, kind: str, clips: Sequence[Clip], pairs: Sequence[PairNames], of_experiment: bool = False
) -> list[str]:
    """Write both tables into a run's directory; gives the mean distance by feature and the files, a line each.

    `of_experiment`: the pairs are those of the run's experiment, and not those that the command drew.
    """
    table = clip_table(clips)
    apart = pair_table(table, pairs)
    write_table(run / "acoustics.csv", table)
    write_table(run / pair_file(kind), apart)
    without_pitch, silent = (int(table[column].isna().sum()) for column in ("f0", "energy"))
    whose = " of the run's experiment (not those drawn above)" if of_experiment else ""
    shown = [
        f"clips without a pitch (too short, or not voiced): {without_pitch} of {len(table)}",
        f"silent clips, of which only the length is measured: {silent} of {len(table)}",
        f"mean acoustic distance of {len(apart)} {kind} pairs{whose}, in sd of the clips:",
    ]
    for feature in FEATURES:
        missing = int(apart[feature].isna().sum())
        note = f"  ({missing} pairs without a value)" if missing else ""
        mean = "–" if missing == len(apart) else f"{apart[feature].mean():.2f}"
        shown.append(f"  {feature:<9}{mean}{note}")
    return [*shown, *(f"table: {run / name}" for name in ("acoustics.csv", pair_file(kind)))]
