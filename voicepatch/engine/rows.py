"""The rows that a planned experiment asks for: their writes, and what is known about each row.

    drafts = [draft_row(lm, result, pair.a, layer, options), …]     # one call of the experiment each
    rows = resolve_rows(drafts, recordings)                         # comparisons, fetched from the device together
    rows[0].writes, rows[0].source, rows[0].n

What is known about a row is found here and never declared. Everything before its first written position is A's. Where
the residual stream was replaced by exactly the donor's values, and the same tokens stand before it, every position up
to the end of the replaced ones is the donor's at all later layers, because attention is causal.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from voicepatch.engine.plan import LATE, CannotPlan, PlannedLM, PlannedTrace
from voicepatch.engine.recordings import Recordings
from voicepatch.engine.sites import Site, Value, Write, as_index, as_range
from voicepatch.models.speech_lm import PLACEHOLDER_ID, ClipInput


@dataclass(frozen=True)
class Draft:
    """One call of an experiment that was planned: `first` is what its last trace wrote first."""

    layer: int
    options: Mapping[str, Any]
    clip: ClipInput
    donors: list[ClipInput]
    trace: PlannedTrace
    first: Value


@dataclass(frozen=True)
class Row:
    """One call of an experiment: A's run with `writes` in it, in the order of computing.

    From the first write on, positions before `n` are those of `source`'s own run. `original` is the value that the
    first write replaced.
    """

    layer: int
    options: Mapping[str, Any]
    clip: ClipInput
    writes: list[Write]
    original: torch.Tensor
    source: ClipInput
    n: int


def draft_row(lm: PlannedLM, result: Any, recipient: ClipInput, layer: int, options: Mapping[str, Any]) -> Draft:
    """The row that the last call of an experiment asked for; `CannotPlan` where it gave no patched readout of A."""
    traces, lm.traces = lm.traces, []
    trace = traces[-1] if traces and traces[-1].gave(result) else None
    first = trace.first_written if trace else None
    if trace is None or first is None:
        raise CannotPlan("what is returned is not the patched readout of the last trace, as it is")
    if trace.clip is not recipient:
        raise CannotPlan("the last trace is not over pair.a")
    if trace.was_written_late:
        raise CannotPlan(LATE)
    # The tokens of a clip that an experiment made may be another clip's and stand for other embeddings.
    traced = [trace.clip for trace in traces if lm.clip_copies.has_copy_of(trace.clip)]
    donors = list(dict.fromkeys(clip for clip in traced if clip is not recipient))
    return Draft(layer, options, recipient, donors, trace, first)


def resolve_rows(drafts: Sequence[Draft], recordings: Recordings) -> list[Row]:
    """The writes of each draft, and what is known about its row."""
    queries: list[torch.Tensor] = []

    def query(answers: torch.Tensor) -> int:
        queries.append(answers)
        return len(queries) - 1

    asked = []
    for draft in drafts:
        first, later = draft.first, draft.trace.write_only.values()
        changed = query(first.changed()) if first.needs_comparison else None
        streams: list[tuple[Site, torch.Tensor, torch.Tensor | None]] = []
        if first.site.is_stream:
            streams = [(first.site, first.tensor, None)]
            streams += [(value.site, value.values, value.mask) for value in later if value.site.is_stream]
        positions = [(value.site, query(value.mask.flatten(2).any(2)[0])) for value in later]
        same = {
            donor: {site: query(_same(tensor, mask, recordings.at(donor, site))) for site, tensor, mask in streams}
            for donor in draft.donors
            if streams
        }
        asked.append((draft, changed, positions, same))
    answers = _fetched(queries)
    return [
        _row(
            draft,
            _writes(draft, None if changed is None else answers[changed], {site: answers[i] for site, i in positions}),
            {donor: {site: answers[i] for site, i in found.items()} for donor, found in same.items()},
        )
        for draft, changed, positions, same in asked
    ]


def _same(tensor: torch.Tensor, mask: torch.Tensor | None, donors: torch.Tensor) -> torch.Tensor:
    """`[n]`: at which of the positions that both have the tensor is exactly the donor's, as far as it is known."""
    n = min(tensor.shape[1], donors.shape[1])
    same = tensor[0, :n] == donors[0, :n]
    return (same if mask is None else same | ~mask[0, :n]).all(1)


def _fetched(queries: list[torch.Tensor]) -> list[list[bool]]:
    """Boolean vectors as lists, brought to the processor in one transfer."""
    if not queries:
        return []
    return [part.tolist() for part in torch.cat(queries).cpu().split([len(part) for part in queries])]


def _writes(draft: Draft, changed: list[bool] | None, positions: Mapping[Site, list[bool]]) -> list[Write]:
    first = draft.first
    at = first.written(changed)
    index = as_index(at, 0, first.original.device)
    writes = [Write(first.site, at, first.tensor[0, index], None, first.replaced)]
    for value in draft.trace.write_only.values():
        at = as_range([position for position, is_written in enumerate(positions[value.site]) if is_written])
        if len(at):  # else it was looked up and not written
            index = as_index(at, 0, value.values.device)
            writes.append(Write(value.site, at, value.values[0, index], value.mask[0, index], value.replaced))
    return writes


def _row(draft: Draft, writes: list[Write], same: Mapping[ClipInput, Mapping[Site, list[bool]]]) -> Row:
    clip, first = draft.clip, draft.first
    most = clip.readout_pos  # the readout must be computed
    source, known = clip, min(most, *(write.positions[0] for write in writes))
    start = writes[0].positions[0]
    for donor, found in same.items():
        n = _donors_up_to(writes, found)
        if n > start and start <= common_prefix(clip, donor) and min(n, most) > known:
            source, known = donor, min(n, most)
    original = first.original[0, as_index(writes[0].positions, 0, first.original.device)]
    return Row(draft.layer, draft.options, clip, writes, original, source, known)


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


def relative_changes(changes: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """The relative change ‖new − old‖ / ‖old‖ of each (new, old) `[n, …]`; fetched in one transfer."""
    found = []
    for new, old in changes:
        new, old = new.float(), old.float()
        found.append((new - old).norm() / old.norm().clamp_min(torch.finfo(torch.float32).tiny))
    return torch.stack(found).tolist() if found else []
