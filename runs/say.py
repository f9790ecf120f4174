"""How a run tells its user something: a function that takes a line."""

from collections.abc import Callable

Say = Callable[[str], None]


def once(say: Say, said: set[str]) -> Say:
    """`say` without what has been said; `said` may be shared by several."""

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return tell
