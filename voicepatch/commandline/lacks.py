"""What the machine, or a limit on the process, lacked: memory, threads, open files, a home directory.

    check_process()
    line = lack_of(error)               # None for any other error

Such an error can come from any library, so it is looked for where all errors arrive.
"""

import errno
import re

from voicepatch.errors import UserError

MIN_OPEN_FILES = 64
NO_MEMORY = re.compile("allocate memory|unable to allocate|out of memory|failed to map segment", re.IGNORECASE)
NO_THREAD = ("can't start new thread", "cannot start new thread", "pthread_create")


def lack_of(error: BaseException) -> str | None:
    """One line on what was lacking, how much of it, and what needs less; None for any other error."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or NO_MEMORY.search(text):
        return (
            f"out of memory{_needed(text)}; --store-mb 0, --max-rows 1, fewer --workers, --dtype bfloat16 and shorter "
            "sounds need less, or raise the limit (ulimit -v, a container's); finished pairs are stored"
        )
    if any(words in text for words in NO_THREAD):
        return (
            "no more threads: the process may have no more, or no memory for one; fewer --workers and "
            "OMP_NUM_THREADS=1 need less, or raise the limit (ulimit -u, ulimit -v, a container's)"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit, as with `ulimit -n 1024`"
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


def _needed(text: str) -> str:
    """How much was requested, where the error says so."""
    found = re.search(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)", text)
    if found is None:
        return ""
    n, unit = found.groups()
    return f", {n} {unit} more were needed" if unit != "bytes" else f", {int(n) / 2**20:,.0f} MiB more were needed"
