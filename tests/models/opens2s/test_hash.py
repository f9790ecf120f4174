"""The hash of a checkpoint covers all files that are read, and not their place."""

import json
import shutil
from pathlib import Path

import pytest

from voicepatch.models.checkpoint import checkpoint_hash


def test_the_hash_tells_models_apart_and_not_their_places(checkpoint, tmp_path):
    moved = Path(shutil.copytree(checkpoint.folder, tmp_path / "elsewhere" / "renamed"))
    before = checkpoint_hash(checkpoint.folder)
    assert checkpoint_hash(moved) == before

    weights = bytearray(checkpoint.weights.read_bytes())
    weights[-1] ^= 1
    checkpoint.weights.write_bytes(weights)
    assert checkpoint_hash(checkpoint.folder) != before

    config = json.loads((moved / "config.json").read_text())
    config["llm_config"]["rope_theta"] = 10_000
    (moved / "config.json").write_text(json.dumps(config))
    assert checkpoint_hash(moved) != before


@pytest.mark.parametrize("shard", ["a.safetensors", "b.safetensors"])
def test_the_hash_covers_every_shard_that_is_read(checkpoint, shard):
    checkpoint.shard()
    before = checkpoint_hash(checkpoint.folder)
    with (checkpoint.folder / shard).open("ab") as file:
        file.write(b"x")
    assert checkpoint_hash(checkpoint.folder) != before


def test_the_hash_covers_the_tokenizer_and_the_feature_extractor(checkpoint):
    hashes = {checkpoint_hash(checkpoint.folder)}
    for name in ("tokenizer.json", "audio/preprocessor_config.json"):
        (checkpoint.folder / name).write_text("{}")
        hashes.add(checkpoint_hash(checkpoint.folder))
    assert len(hashes) == 3
