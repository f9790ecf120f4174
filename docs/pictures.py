"""The pictures of README.md and docs/: `python docs/pictures.py FOLDER` runs the demo in FOLDER and writes them.

Runs in FOLDER that are finished are not computed again, only drawn again.
"""

import subprocess
import sys
from pathlib import Path

import vl_convert

DOCS = Path(__file__).resolve().parent
PIXELS_PER_INCH = 100  # the figures of a run have print resolution, which a page does not need
COMMANDS = (
    "patch --kind prosody --out demo",
    "patch --kind semantic --out demo",
    "control --kind all --out demo",
    "timeline --kind prosody --out demo",
    "lens --out demo",
    "patch --kind prosody --seed 7 --out seed-7",
    "report demo",
    "report seed-7",
    "compare demo seed-7 --out comparison",
)
PICTURES = {
    "override_and_need": "demo/override_and_need",
    "controls_prosody": "demo/controls_prosody",
    "timeline_prosody": "demo/timeline_timeline-prosody",
    "lens_prosody": "demo/lens_lens-prosody",
    "compare_prosody": "comparison/compare_prosody",
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        subprocess.run([sys.executable, DOCS.parent / "cli.py", *command.split()], cwd=folder, check=True)
    for picture, figure in PICTURES.items():
        svg = (folder / f"{figure}.svg").read_text(encoding="utf-8")
        (DOCS / f"{picture}.png").write_bytes(vl_convert.svg_to_png(svg, ppi=PIXELS_PER_INCH))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
