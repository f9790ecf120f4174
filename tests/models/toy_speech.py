"""The family of docs/models.md as a plugin file beside a checkpoint of it, and families that break the contract."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
}


def example(title):
    """The Python block of docs/models.md that begins with `# title`."""
    return re.search(rf"```python\n(# {title}\n.*?)```", DOCS.read_text(encoding="utf-8"), re.S)[1]


def write_toy(folder):
    """The plugin file `toy.py` and the checkpoint folder `toy` of the documentation."""
    plugin, checkpoint = folder / "toy.py", folder / "toy"
    plugin.write_text(example("toy.py"), encoding="utf-8")
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "toy_speech", "decoder": CONFIG}))
    return plugin, checkpoint
