"""Where the program, its demo and its results are.

`results/` is in the folder that a command is called in, wherever the program itself is installed.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # holds cli.py, interventions/, pairs/, tasks/ and voicepatch/
DEMO_MODEL = ROOT / "demo" / "opens2s-demo"
DEMO_DATA = ROOT / "demo" / "synthetic-clips"
RESULTS = Path("results")
# Of this user, on this machine; what is in it can be computed again.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "voicepatch"
