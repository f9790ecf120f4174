"""The family of `toy.py` as a plugin file beside a checkpoint of it."""

import json
import shutil
from pathlib import Path

PLUGIN = Path(__file__).with_name("toy.py")
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
}


def write_toy(folder):
    """A copy of `toy.py`, and a checkpoint folder `toy` without weights."""
    plugin, checkpoint = Path(shutil.copy(PLUGIN, folder)), folder / "toy"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "toy_speech", "decoder": CONFIG}))
    return plugin, checkpoint
