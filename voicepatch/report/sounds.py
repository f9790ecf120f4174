"""The sounds of the pairs, small enough to live inside the page.

sounds, note = sounds_of(shown_clips, experiments, clips)       # number of the clip -> base64 of an MP3
"""

import base64
import io
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import soundfile

from voicepatch.audio.cache import read_sound
from voicepatch.audio.decode import SAMPLE_RATE, seconds_of
from voicepatch.errors import UserError
from voicepatch.types.clip import Clip

# Every browser plays MP3. At 16 kHz and mono these levels are 24 and 16 kbit/s; the better one is taken where all fit.
LEVELS = {0.9: 4_200, 0.95: 2_800}  # compression level -> characters that a second of sound costs here
BUDGET = 2_200_000


def sounds_of(
    shown: list[dict[str, Any]], experiments: list[dict[str, Any]], clips: Mapping[str, Clip]
) -> tuple[dict[int, str], str]:
    """Each clip once, as base64, for the first pairs of every experiment in turn until the budget is spent.

    The second is a remark on what is left out, or "". A clip that cannot be read is.
    """
    numbers = [
        number for experiment in experiments for pair in experiment["pairs"] for number in (pair["a"], pair["b"])
    ]
    wanted = [number for number in dict.fromkeys(numbers) if shown[number]["id"] in clips]
    paths = {number: clips[shown[number]["id"]].path for number in wanted}
    level = _level(paths.values())
    sounds: dict[int, str] = {}
    notes: list[str] = []
    spent = unreadable = 0
    for count, (number, path) in enumerate(paths.items()):
        try:
            sound = _mp3(path, path.stat().st_mtime_ns, level)
        except (UserError, OSError):
            unreadable += 1
            continue
        spent += len(sound)
        if spent > BUDGET:
            left_out = len(wanted) - count
            notes.append(
                f"To keep this file small, {left_out} of the {len(wanted)} clips are left out: "
                "those of the later pairs are silent here."
            )
            break
        sounds[number] = sound
    if unreadable:
        notes.append(f"Silent here, since they could not be read: {unreadable} of the {len(wanted)} clips.")
    return sounds, " ".join(notes)


def _level(paths: Iterable[Path]) -> float:
    """The best compression level at which everything fits, or the smallest."""
    seconds = sum(map(seconds_of, paths))
    return next((level for level, cost in LEVELS.items() if seconds * cost <= BUDGET), max(LEVELS))


@lru_cache(maxsize=1024)  # the page is made again after every experiment of one command
def _mp3(path: Path, modified: int, level: float) -> str:
    file = io.BytesIO()
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": level, "bitrate_mode": "CONSTANT"}
    soundfile.write(file, read_sound(path).waveform, SAMPLE_RATE, **how)
    return base64.b64encode(file.getvalue()).decode()
