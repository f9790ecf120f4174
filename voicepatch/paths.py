"""Where the program, its demo and its results are.

`results/` is in the folder that a command is called in, wherever the program itself is installed.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # holds cli.py, interventions/, pairs/, tasks/ and voicepatch/
DEMO_MODEL = ROOT / "demo" / "opens2s-demo"
DEMO_DATA = ROOT / "demo" / "synthetic-clips"
RESULTS = Path("results")
