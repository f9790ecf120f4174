"""From what a planned experiment wrote to the rows that are computed: their writes, and what is known of each.

    rows = [drafted(lm, result, pair.a, layer, options), …]       # one call of the experiment each
    settle(rows, recordings)                                      # comparisons, fetched from the device together
    rows[0].writes, rows[0].source, rows[0].n

What is known of a row is found here and never declared. Everything before its first written position is A's. And where
the residual stream was given exactly what a donor's own run has there, with nothing but the same tokens before it,
everything up to the end of that is the donor's at every later layer: causal attention lets nothing of A in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.plan import LATE, CannotPlan, PlannedLM, PlannedTrace
from engine.recordings import Recordings
from engine.sites import Site, Write, as_index, as_range
from models.speech_lm import PLACEHOLDER_ID, ClipInput


@dataclass
class Row:
    """One call of an experiment: A's run with `writes` in it, in the order of computing.

    From the first write on, positions before `n` are those of `source`'s own run. `original` is what stood where the
    first write went.
    """

    layer: int
    options: Mapping[str, Any]
    clip: ClipInput
    donors: list[ClipInput]
    trace: PlannedTrace | None  # until the row is settled
    writes: list[Write] = field(default_factory=list)
    original: torch.Tensor | None = None
    source: ClipInput | None = None
    n: int = 0


def drafted(lm: PlannedLM, result: Any, recipient: ClipInput, layer: int, options: Mapping[str, Any]) -> Row:
    """The row that the last call of an experiment asked for; `CannotPlan` where it gave no patched readout of A."""
    traces, lm.traces = lm.traces, []
    if not traces or not traces[-1].gave(result):
        raise CannotPlan("what is returned is not the patched readout of the last trace, as it is")
    trace = traces[-1]
    if trace.clip is not recipient:
        raise CannotPlan("the last trace is not over pair.a")
    if trace.was_written_late:
        raise CannotPlan(LATE)
    # The tokens of a clip that an experiment made may be another clip's and stand for other embeddings.
    heard = [trace.clip for trace in traces if lm.handed_out.gave(trace.clip)]
    donors = list(dict.fromkeys(clip for clip in heard if clip is not recipient))
    return Row(layer, options, recipient, donors, trace)


def settle(rows: Sequence[Row], recordings: Recordings) -> None:
    """Fill in the writes of rows and what is known of each."""
    asked: list[torch.Tensor] = []

    def ask(answers: torch.Tensor) -> int:
        asked.append(answers)
        return len(asked) - 1

    questions = []
    for row in rows:
        first = row.trace.first_written
        changed = ask(first.changed()) if first.passed_by else None
        streams = [(first.site, first.tensor, None)] if first.site.is_stream else []
        streams += [
            (blind.site, blind.values, blind.mask) for blind in row.trace.blind.values() if blind.site.is_stream
        ]
        positions = [(blind.site, ask(blind.mask.flatten(2).any(2)[0])) for blind in row.trace.blind.values()]
        alike = {
            donor: {site: ask(_alike(tensor, mask, recordings.at(donor, site))) for site, tensor, mask in streams}
            for donor in row.donors
            if first.site.is_stream
        }
        questions.append((row, changed, positions, alike))
    answers = _fetched(asked)
    for row, changed, positions, alike in questions:
        _set_writes(row, None if changed is None else answers[changed], {site: answers[i] for site, i in positions})
        row.trace = None
        _set_known(row, {donor: {site: answers[i] for site, i in found.items()} for donor, found in alike.items()})


def _alike(tensor: torch.Tensor, mask: torch.Tensor | None, donors: torch.Tensor) -> torch.Tensor:
    """`[n]`: at which of the positions that both have the tensor is exactly the donor's, as far as it is known."""
    n = min(tensor.shape[1], donors.shape[1])
    same = tensor[0, :n] == donors[0, :n]
    return (same if mask is None else same | ~mask[0, :n]).all(1)


def _fetched(asked: list[torch.Tensor]) -> list[list[bool]]:
    """Boolean vectors as lists, brought to the processor in one transfer."""
    if not asked:
        return []
    return [part.tolist() for part in torch.cat(asked).cpu().split([len(part) for part in asked])]


def _set_writes(row: Row, changed: list[bool] | None, positions: Mapping[Site, list[bool]]) -> None:
    first = row.trace.first_written
    at = first.written(changed)
    index = as_index(at, 0, first.original.device)
    row.original = first.original[0, index]
    row.writes = [Write(first.site, at, first.tensor[0, index], None, first.replaced)]
    for blind in row.trace.blind.values():
        at = as_range([position for position, is_written in enumerate(positions[blind.site]) if is_written])
        if len(at):  # else it was looked up and not written
            index = as_index(at, 0, blind.values.device)
            row.writes.append(Write(blind.site, at, blind.values[0, index], blind.mask[0, index], blind.replaced))


def _set_known(row: Row, alike: Mapping[ClipInput, Mapping[Site, list[bool]]]) -> None:
    most = row.clip.readout_pos  # the readout must be computed
    row.source, row.n = row.clip, min(most, *(write.positions[0] for write in row.writes))
    for donor, same in alike.items():
        n = _donors_up_to(row.writes, same)
        if n > row.writes[0].positions[0] and row.writes[0].positions[0] <= common_prefix(row.clip, donor):
            if min(n, most) > row.n:
                row.source, row.n = donor, min(n, most)


def _donors_up_to(writes: Sequence[Write], same: Mapping[Site, list[bool]]) -> int:
    """The first position that is not the donor's own, counted from where the first write begins."""
    first, *others = writes
    n = first.positions[0]
    at_first = same[first.site]
    for position in first.positions:
        if position != n or n >= len(at_first) or not at_first[n]:
            break
        n += 1
    for write in others:
        there = same.get(write.site, [])
        n = next((p for p in write.positions if p < n and not (p < len(there) and there[p])), n)
    return n


def common_prefix(a: ClipInput, b: ClipInput) -> int:
    """How many first positions hold the same token of the prompt in both."""
    pairs = zip(a.input_ids.tolist(), b.input_ids.tolist(), strict=False)
    return next((n for n, (x, y) in enumerate(pairs) if x != y or x == PLACEHOLDER_ID), 0)


def shifts(changes: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """How far each value moved, ‖new − old‖ / ‖old‖, of (new, old) `[n, …]`; fetched in one transfer."""
    found = []
    for new, old in changes:
        new, old = new.float(), old.float()
        found.append((new - old).norm() / old.norm().clamp_min(torch.finfo(torch.float32).tiny))
    return torch.stack(found).tolist() if found else []
