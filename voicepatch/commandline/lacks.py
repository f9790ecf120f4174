"""What the machine, or a limit on the process, lacked: memory, threads, open files, a home directory.

    check_process()
    line = lack_of(error)               # None for any other error

Such an error can come from anywhere, also from inside a library, so it is looked for where all errors arrive.
"""

import errno
import re
import traceback
from pathlib import Path

from voicepatch.errors import UserError
from voicepatch.paths import ROOT

MIN_OPEN_FILES = 64
ANALYSIS = "making tables and figures", "the records are kept, and `python cli.py report RUN` begins here"
LESS_MEMORY = "--store-mb 0, --max-rows 1, fewer --workers and --dtype bfloat16 need less"
# What the program was doing, by the innermost of its files that an error came through, and what needs less. What is
# read for tables and figures is part of making them.
DOING = {
    "voicepatch/audio": ("decoding a sound", "leave very long sounds out (--on-bad-clip skip)"),
    "voicepatch/models": ("loading the model", "--dtype bfloat16, fewer --workers or a smaller model need less"),
    "voicepatch/engine": ("computing pairs", LESS_MEMORY),
    "interventions": ("computing pairs", LESS_MEMORY),
    "voicepatch/workers": ("starting workers", "fewer --workers need less"),
    "voicepatch/runs": ("running an experiment", LESS_MEMORY),
    "pairs": ("reading the data", "give a part of them"),
}
NO_MEMORY = ("allocate memory", "unable to allocate", "out of memory", "failed to map segment")
NO_THREAD = ("can't start new thread", "cannot start new thread", "pthread_create")


def lack_of(error: BaseException) -> str | None:
    """One line on what was lacking, for what, how much of it, and what needs less; None for any other error."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    doing, way_out = _doing(error)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in text.lower() for words in NO_MEMORY):
        return f"out of memory while {doing}{_needed(text)}; {way_out}, or raise the limit (ulimit -v, a container's)"
    if any(words in text for words in NO_THREAD):
        return (
            f"no more threads while {doing}: the process may have no more, or no memory for one; fewer --workers and "
            "OMP_NUM_THREADS=1 need less, or raise the limit (ulimit -u, ulimit -v, a container's)"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many open files while {doing}; raise the limit, as with `ulimit -n 1024`"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "no home directory is known, which libraries keep their settings in; set HOME"
    return None


def check_process() -> None:
    """Raise `UserError` where the process may open too few files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < MIN_OPEN_FILES:
        raise UserError(
            f"only {soft} files may be open at once, and {MIN_OPEN_FILES} are needed; `ulimit -n 1024` allows more"
        )


def _doing(error: BaseException) -> tuple[str, str]:
    files = [Path(frame.filename) for frame in reversed(traceback.extract_tb(error.__traceback__))]
    own = [file.relative_to(ROOT).with_suffix("").as_posix() for file in files if file.is_relative_to(ROOT)]
    if any(file.startswith(("voicepatch/analysis/", "voicepatch/figures/", "voicepatch/report/")) for file in own):
        return ANALYSIS
    stages = (what for file in own for start, what in DOING.items() if f"{file}/".startswith(f"{start}/"))
    return next(stages, ("starting", LESS_MEMORY))


def _needed(text: str) -> str:
    """How much was asked for, where the error says so."""
    found = re.search(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)", text)
    if found is None:
        return ""
    n, unit = found.groups()
    return f", {n} {unit} more were needed" if unit != "bytes" else f", {int(n) / 2**20:,.0f} MiB more were needed"
