"""How a run writes to its user: a function that takes a line."""

from collections.abc import Callable

Log = Callable[[str], None]


def deduplicated(log: Log, logged: set[str]) -> Log:
    """`log` without the lines that are in `logged` already, which several may share."""

    def log_new(line: str) -> None:
        if line not in logged:
            logged.add(line)
            log(line)

    return log_new
