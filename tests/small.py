"""The demo's model cut down to its first layers: what any model would show is shown by one that runs in less time."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from safetensors.numpy import load_file, save_file

from voicepatch.paths import DEMO_MODEL

N_LAYERS = 4


@cache
def small_model() -> Path:
    """A checkpoint with `N_LAYERS` of the demo's decoder layers and one of its encoder's, kept as long as the process.

    It answers by nothing in particular: tests of how often answers move take the demo itself.
    """
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = shutil.copytree(DEMO_MODEL, place / "opens2s-small", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8"))
    config["llm_config"]["num_hidden_layers"] = N_LAYERS
    config["audio_encoder_config"] |= {"encoder_layers": 1, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = load_file(DEMO_MODEL / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if _is_kept(name)}, folder / "model.safetensors")
    return folder


def _is_kept(name: str) -> bool:
    _, in_layer, number = name.partition(".layers.")
    first = N_LAYERS if name.startswith("llm_model.") else 1
    return not in_layer or int(number.partition(".")[0]) < first
