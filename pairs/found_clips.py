"""The clips that a run was made from, if they are still there.

clips, why_not = find_clips(config["data"])
"""

from pathlib import Path
from typing import Any

from pairs.load import load_dataset
from voicepatch.errors import UserError
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import dataset_hash


def find_clips(data: dict[str, Any]) -> tuple[dict[str, Clip], str]:
    """The run's clips by id, or none and the reason; the data must be those that the run recorded."""
    try:
        dataset = load_dataset(Path(data["source"]), Path(data["texts"]) if "texts" in data else None)
        same = dataset_hash(dataset) == data["sha256"]
        if not same:
            dataset.check_readable()
    except UserError as error:
        return {}, f"The data could not be read when this page was made, so it has no texts and no sound ({error})."
    if not same:
        return {}, (
            f"What lies at {data['source']} is no longer what this run was made from (its sha256 differs), "
            "so this page has no texts and no sound."
        )
    return {clip.clip_id: clip for clip in dataset.clips}, ""
