"""The rows that a planned experiment asks for: their writes, and what is known about each row.

    drafts = [draft_row(lm, result, pair.a, layer, options), …]     # one call of the experiment each
    rows = resolve_rows(drafts, recordings)                         # comparisons, fetched from the device together
    rows[0].writes, rows[0].source, rows[0].n

What is known about a row is found here and never declared. Everything before its first written position is A's. Where
the residual stream was replaced by exactly the donor's values, and the same tokens stand before it, every position up
to the end of the replaced ones is the donor's at all later layers, because attention is causal. Where keys and values
were replaced by the donor's at the same positions, and A's own stream was written back over them after the block,
these positions are A's at all layers, with the donor's keys and values in that block.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from voicepatch.engine.masks import attends_to_nothing, check_rows
from voicepatch.engine.plan import LATE, CannotPlan, PlannedLM, PlannedTrace
from voicepatch.engine.recordings import PastWrite, Recordings
from voicepatch.engine.sites import BLOCK, KEYS, MASK, Site, Value, Write, as_index, as_range
from voicepatch.engine.transfer import fetched
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

    From the first write on, positions before `n` are those of `source`'s own run, with the keys and values of `past`
    at some of them. `original` is the value that the first write replaced.
    """

    layer: int
    options: Mapping[str, Any]
    clip: ClipInput
    writes: list[Write]
    original: torch.Tensor
    source: ClipInput
    n: int
    past: tuple[PastWrite, ...] = ()


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

    planned, blocked = [], []
    for draft in drafts:
        first, later = draft.first, draft.trace.write_only.values()
        changed = query(first.changed()) if first.needs_comparison else None
        positions = [(value.site, query(value.mask.flatten(2).any(2)[0])) for value in later]
        same = {
            clip: {
                site: query(_same(tensor, mask, recordings.at(clip, site), not first.site.is_stream))
                for site, tensor, mask in compared
            }
            for clip, compared in _compared(draft).items()
        }
        masks: list[tuple[Site, torch.Tensor]] = [(first.site, first.tensor)] if first.site.end == MASK else []
        masks += [
            (value.site, torch.where(value.mask, value.values, recordings.at(draft.clip, value.site)))
            for value in later
            if value.site.end == MASK
        ]
        blocked += [(site.layer, query(attends_to_nothing(mask[0]))) for site, mask in masks]
        planned.append((draft, changed, positions, same))
    answers = fetched(queries)
    for layer, found in blocked:
        check_rows(layer, answers[found])
    return [
        _row(
            draft,
            _writes(draft, None if changed is None else answers[changed], {site: answers[i] for site, i in positions}),
            {donor: {site: answers[i] for site, i in found.items()} for donor, found in same.items()},
        )
        for draft, changed, positions, same in planned
    ]


def _compared(draft: Draft) -> dict[ClipInput, list[tuple[Site, torch.Tensor, torch.Tensor | None]]]:
    """For each clip, the values that may be its own: what was written, and at which of its elements (None: at all)."""
    first, later = draft.first, draft.trace.write_only.values()
    values = [(first.site, first.tensor, None), *((value.site, value.values, value.mask) for value in later)]
    streams = [value for value in values if value[0].is_stream]
    if first.site.is_stream:
        return {donor: streams for donor in draft.donors}
    if not first.site.is_key_or_value:
        return {}
    changed = [value for value in values if value[0].is_key_or_value]
    return {draft.clip: streams} | {donor: changed for donor in draft.donors}


def _same(tensor: torch.Tensor, mask: torch.Tensor | None, donors: torch.Tensor, is_complete: bool) -> torch.Tensor:
    """`[n]`: at which of the positions that both have the tensor is exactly the donor's.

    Elements that were not written, where `mask` is false, count as the donor's unless the value must be complete.
    """
    n = min(tensor.shape[1], donors.shape[1])
    same = tensor[0, :n] == donors[0, :n]
    if mask is not None:
        same = same & mask[0, :n] if is_complete else same | ~mask[0, :n]
    return same.all(1)


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
    original = first.original[0, as_index(writes[0].positions, 0, first.original.device)]
    if first.site.is_key_or_value:
        n, past = _after_restored(clip, writes, same)
        return Row(draft.layer, draft.options, clip, writes, original, clip, max(known, min(n, most)), past)
    for donor, found in same.items():
        n = _donors_up_to(writes, found)
        if n > start and start <= common_prefix(clip, donor) and min(n, most) > known:
            source, known = donor, min(n, most)
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


def _after_restored(
    clip: ClipInput, writes: Sequence[Write], same: Mapping[ClipInput, Mapping[Site, list[bool]]]
) -> tuple[int, tuple[PastWrite, ...]]:
    """The first position that is not A's own, and the donors' keys and values before it; 0 where that is not known."""
    changed = [write for write in writes if write.site.is_key_or_value]
    streams = {write.site: write for write in writes if write.site.is_stream}
    if len(changed) + len(streams) < len(writes):
        return 0, ()
    past = []
    for write in changed:
        donor = next((d for d, found in same.items() if d is not clip and _all(found[write.site], write)), None)
        if donor is None:
            return 0, ()
        past.append(PastWrite(write.site.layer, write.positions, write.site.path == KEYS, donor))
    start, n = min(write.positions[0] for write in changed), clip.readout_pos + 1
    restored = {site: {p for p in write.positions if same[clip][site][p]} for site, write in streams.items()}
    for site, write in streams.items():
        n = min([n, *(set(write.positions) - restored[site])])
    # After a block whose keys or values changed, all positions from the first changed one on must be restored.
    for site in {Site(write.site.layer, BLOCK, "output") for write in changed}:
        n = next((p for p in range(start, n) if p not in restored.get(site, ())), n)
    return (n, tuple(past)) if all(write.positions[-1] < n for write in changed) else (0, ())


def _all(same: Sequence[bool], write: Write) -> bool:
    return all(position < len(same) and same[position] for position in write.positions)


def common_prefix(a: ClipInput, b: ClipInput) -> int:
    """How many first positions hold the same token of the prompt in both."""
    pairs = zip(a.input_ids.tolist(), b.input_ids.tolist(), strict=False)
    return next((n for n, (x, y) in enumerate(pairs) if x != y or x == PLACEHOLDER_ID), 0)


def relative_changes(changes: Iterable[tuple[Site | None, torch.Tensor, torch.Tensor]]) -> list[float]:
    """The relative change ‖new − old‖ / ‖old‖ of each (site, new, old) `[n, …]`.

    Of a mask it is that of its exponential, 1 where a position is attended to and 0 where it is not.
    """
    found = []
    for site, new, old in changes:
        new, old = new.float(), old.float()
        if site and site.end == MASK:
            new, old = new.exp(), old.exp()
        found.append((new - old).norm() / old.norm().clamp_min(torch.finfo(torch.float32).tiny))
    return [change for [change] in fetched([one[None] for one in found])]
