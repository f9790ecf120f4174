"""Records in the order of the pairs, whichever worker they come from.

    for records in in_order(crew, pairs, say, failed, asked): ...

Chunks are handed out in the order of the list. What comes back early waits; how much can wait is bounded, so memory
does not grow with the number of pairs.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.failures import PairFailed
from errors import UserError
from pairs import Pair
from pairs.clips import listing
from runs.directory import Row
from runs.place import Asked, Failed
from runs.say import Say
from workers.chunks import cut
from workers.member import Lost, Member
from workers.worker import Part

OPEN = 2  # chunks for each worker that are at work, or done and waiting for an earlier one
DEATHS = 2  # workers that may die over one chunk before it is taken for the cause


class Workers(Protocol):
    """What the order needs of a crew."""

    members: list[Member]

    def alive(self) -> list[Member]: ...

    def ready(self, references: Sequence[Any]) -> list[Any]: ...

    def warn(self, member: Member, error: Lost, what: str = "") -> None: ...


@dataclass(eq=False)
class Chunk:
    """Neighbouring pairs: those whose records have not come yet, and the rows that wait to be given."""

    coming: deque[Pair]
    rows: deque[tuple[Pair, Member, list[Row], PairFailed | None]] = field(default_factory=deque)
    at_work: bool = False
    deaths: int = 0
    error: UserError | None = None


def in_order(crew: Workers, pairs: Sequence[Pair], say: Say, failed: Failed, asked: Asked) -> Iterator[list[Row]]:
    """The records of each pair, in order; `runs.place.Task.records`.

    A worker that dies is warned of, and what it had not given yet goes to another; a chunk that two workers died over
    ends the run.
    """
    queue = deque(Chunk(deque(chunk)) for chunk in cut(pairs, len(crew.alive())))
    begun: deque[Chunk] = deque()
    running: dict[Any, tuple[Member, Chunk]] = {}
    while True:
        if not asked():
            _hand_out(crew, queue, begun, running)
        while begun:
            yield from _given(begun[0], failed)
            if begun[0].error:
                raise begun[0].error
            if begun[0].coming:
                break
            begun.popleft()
        if not running:
            if asked() or not (queue or begun):
                return
            crew.alive()  # raises where there is nobody for what is left
            continue
        for reference in crew.ready(list(running)):
            member, chunk = running.pop(reference)
            _take(crew, member, chunk, reference, say)
            if chunk.error:
                queue.clear()
            elif chunk.at_work and chunk.coming and not asked():
                running[member.call("run")] = member, chunk


def _hand_out(
    crew: Workers, queue: deque[Chunk], begun: deque[Chunk], running: dict[Any, tuple[Member, Chunk]]
) -> None:
    """Give each idle worker a chunk that another has left, else the next one."""
    members = [member for member in crew.members if not member.lost]
    busy = {member for member, _ in running.values()}
    for member in (member for member in members if member not in busy):
        chunk = next((chunk for chunk in begun if chunk.coming and not chunk.at_work and not chunk.error), None)
        if chunk is None:
            if not queue or len(begun) >= OPEN * len(members):
                return
            chunk = queue.popleft()
            begun.append(chunk)
        chunk.at_work = True
        running[member.call("run", list(chunk.coming))] = member, chunk


def _take(crew: Workers, member: Member, chunk: Chunk, reference: Any, say: Say) -> None:
    """What a worker gave, or that it is gone."""
    try:
        part: Part = member.answer(reference)
    except Lost as error:
        chunk.at_work, chunk.deaths = False, chunk.deaths + 1
        left = [pair.pair_id for pair in chunk.coming]
        if chunk.deaths < DEATHS:
            crew.warn(member, error, f"; its {len(left)} pairs go to the others")
        else:
            crew.warn(member, error)
            chunk.error = UserError(
                f"{chunk.deaths} workers died over the same {len(left)} pairs: {listing(left)}; is there memory "
                "for them (--max-rows, --store-mb)? What was computed before is kept"
            )
        return
    for line in part.said:
        say(f"{member.where}: {line}")
    for records, failure in part.rows:
        chunk.rows.append((chunk.coming.popleft(), member, records, failure))
    if part.error:
        chunk.at_work, chunk.error = False, member.named(part.error)


def _given(chunk: Chunk, failed: Failed) -> Iterator[list[Row]]:
    while chunk.rows:
        pair, member, records, failure = chunk.rows.popleft()
        if failure:
            try:
                failed(pair, failure)
            except UserError as error:
                raise member.named(error) from None
        yield records
