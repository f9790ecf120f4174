"""The gallery: `python docs/gallery.py FOLDER` runs the demo in FOLDER and writes docs/gallery.md and its pictures.

Runs in FOLDER that are finished are not computed again, only drawn again.
"""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import vl_convert

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "gallery"
PIXELS_PER_INCH = 96
COMPARISON = "comparison"  # the folder of compare
HEAD = """# Gallery

A question, the commands that answer it, and the figure. Everything is made from the demo: synthesised clips, and a
small model that was trained to follow the words of explicit texts and the voice of implicit ones. So the figures show
what the commands give, and nothing about models of real size. `python docs/gallery.py FOLDER` makes this page again.

Each figure is drawn as for a paper, without a title: `python cli.py figure RUN_DIR NAME --width 4.5in --format pdf`.
The text below it is its caption, which that command writes into a file beside it.
"""


@dataclass(frozen=True)
class Entry:
    """A question, the commands, and a figure of the folder `run`; `reading` says what to look for."""

    question: str
    commands: tuple[str, ...]
    figure: str
    reading: str
    run: str = "main"


ENTRIES = (
    Entry(
        "Does the model do the task at all?",
        ("answers",),
        "answers",
        "Look at the clips whose words and voice have different labels. Where the model is at chance, patching cannot "
        "show an effect.",
    ),
    Entry(
        "Until which layer can another voice change the answer, and until which can other words?",
        ("patch --kind prosody", "patch --kind semantic"),
        "override_and_need",
        "Above: until which layer B's span can override the answer. Below: until which layer A's own span is needed.",
    ),
    Entry(
        "Is it B's voice, or any change of the span?",
        ("control --kind all --pairs prosody",),
        "controls_prosody",
        "Controls without B's voice must stay low. `suffix` mirrors the main curve: it rises where that falls.",
    ),
    Entry(
        "Does it hold for explicit and for implicit texts?",
        ("report main --by text_type",),
        "flip_rate_curve_prosody_by_text_type",
        "Any column of the data can take the place of `text_type`.",
    ),
    Entry(
        "How much of B does it take?",
        ("patch --kind prosody --alpha 0.1,0.25,0.5,0.75,1 --no-need",),
        "dose_response_prosody",
        "A gradual rise with the dose speaks against an effect of unnatural states alone.",
        run="dose",
    ),
    Entry(
        "Which part of the sound matters?",
        ("timeline --kind prosody",),
        "timeline_timeline-prosody",
        "Each column is one tenth of the span.",
    ),
    Entry(
        "Which heads fetch the voice?",
        ("patch --kind prosody --max-pairs 30 --no-need", "heads --at after"),
        "delta_logit_curve_heads-prosody",
        "Heads at the positions after the span read what the stream carries in it.",
        run="parts",
    ),
    Entry(
        "At which later token does the voice stand?",
        ("tokens",),
        "tokens_tokens-prosody",
        "One position after the span is replaced at a time.",
        run="parts",
    ),
    Entry(
        "In which layers is the span read?",
        ("reads --k 1-4",),
        "flip_rate_curve_reads-prosody",
        "B's keys and values over the span take the place of A's at `k` consecutive layers.",
        run="parts",
    ),
    Entry(
        "What would the model answer at each layer?",
        ("lens",),
        "lens_lens-prosody",
        "Nothing is patched: the final norm and the head read the last position after each layer.",
        run="parts",
    ),
    Entry(
        "Do the curves of two groups of texts differ?",
        (f"compare main --by text_type --out {COMPARISON}",),
        "compare_prosody",
        "The same command compares several runs.",
        run=COMPARISON,
    ),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    parts = [HEAD]
    for command in (command for entry in ENTRIES for command in _with_folder(entry)):
        _run(command, folder)
    for entry in ENTRIES:
        drawn = folder / entry.run / f"{entry.figure}.svg"
        if entry.run != COMPARISON:  # its figures are drawn by compare alone
            drawn = folder / "paper" / f"{entry.figure}.svg"
            _run(f"figure {entry.run} {entry.figure} --width 4.5in --out {shlex.quote(str(drawn))}", folder)
        picture = PICTURES / f"{entry.figure}.png"
        svg = drawn.read_text(encoding="utf-8")
        picture.write_bytes(vl_convert.svg_to_png(svg, ppi=PIXELS_PER_INCH))
        caption = drawn.with_suffix(".txt")
        commands = "\n".join(f"python cli.py {command}" for command in _with_folder(entry))
        text = " ".join(caption.read_text(encoding="utf-8").split())
        parts.append(f"## {entry.question}\n\n```\n{commands}\n```\n\n![{entry.question}](gallery/{picture.name})\n")
        parts.append(f"{entry.reading}\n\n*{text}*\n")
    (DOCS / "gallery.md").write_text("\n".join(parts), encoding="utf-8", newline="\n")


def _with_folder(entry: Entry) -> list[str]:
    """The commands with the run that they write to, where they do not name it."""
    return [c if c.split()[0] in ("report", "compare") else f"{c} --out {entry.run}" for c in entry.commands]


def _run(command: str, folder: Path) -> None:
    subprocess.run([sys.executable, DOCS.parent / "cli.py", *shlex.split(command)], cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
