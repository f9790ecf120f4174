"""Many patched rows in one forward, over the positions that they can change.

    logits = run_rows(decoder, recordings, rows, skips_known=True)     # [1 + rows, vocabulary], A's own readout first

A trace begins with one row of A. Where a row first differs from A it enters the batch: nothing before that depends on
what is written in it. With `skips_known`, rows stand on recorded keys and values, and only the positions behind those
are computed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from nnsight import NNsight

from voicepatch.engine.masks import of_inputs
from voicepatch.engine.recordings import Past, Recordings
from voicepatch.engine.rows import Row
from voicepatch.engine.sites import BLOCK, MASK, Site, Write, as_index, first_of, with_first


def run_rows(
    decoder: NNsight, recordings: Recordings, rows: Sequence[Row], skips_known: bool, max_rows: int | None = None
) -> torch.Tensor:
    """Readouts `[1 + rows, vocabulary]` in float32 of one recipient: its own, then each row's, in the order of `rows`.

    At most `max_rows` rows share a forward.
    """
    rows = [_entering_late(row, recordings) for row in rows]
    readouts: list[Any] = [None] * (1 + len(rows))
    for numbers in _groups(recordings, rows, skips_known, max_rows or len(rows)):
        logits = _run(decoder, recordings, [rows[number] for number in numbers], skips_known)
        for number, row in zip([-1, *numbers], logits, strict=True):
            readouts[1 + number] = row if readouts[1 + number] is None else readouts[1 + number]
    return torch.stack(readouts)


def _entering_late(row: Row, recordings: Recordings) -> Row:
    """The same row, entering after its first block where an addition is all that follows on its write."""
    first, *others = row.writes
    leaving = recordings.leaving(row.clip, first)
    if leaving is None or any(write.site.layer == first.site.layer for write in others):
        return row
    return replace(row, writes=[leaving, *others])


def _groups(recordings: Recordings, rows: Sequence[Row], skips_known: bool, size: int) -> Iterator[list[int]]:
    """Numbers of rows that share a forward: those that stand on the same run, in the order in which they enter."""
    by_source = defaultdict(list)
    for number, row in enumerate(rows):
        by_source[row.source if skips_known else None].append(number)
    for numbers in by_source.values():
        numbers.sort(key=lambda number: recordings.rank(rows[number].writes[0].site))
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))


@dataclass
class _AtLayer:
    """What happens at one layer: rows that enter before or after the block, and writes into rows that are there."""

    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    inside: dict[Site, list[tuple[int, Write]]] = field(default_factory=lambda: defaultdict(list))


def _run(decoder: NNsight, recordings: Recordings, rows: Sequence[Row], skips_known: bool) -> torch.Tensor:
    """One trace; `rows` in the order in which they enter, so that a row's number is its place in the batch."""
    clip = rows[0].clip
    n = min(row.n for row in rows) if skips_known else 0
    on_past = [(number, write) for number, row in enumerate(rows) for write in row.past]
    past = Past(recordings, rows[0].source, n, on_past) if n else None
    own = recordings.of(clip)
    schedule = _schedule(recordings, rows)
    last = len(own.streams) - 1
    batch = _Batch(n)
    with torch.inference_mode():
        with decoder.trace(
            inputs_embeds=clip.inputs_embeds[:, n:], past_key_values=past, use_cache=False, logits_to_keep=1
        ):
            for layer, block in enumerate(decoder.model.layers):
                now = schedule[layer]
                if now.before:
                    block.input = batch.joined(
                        block.input, recordings.at(clip, Site(layer, BLOCK, "input")), now.before
                    )
                for site, writes in now.inside.items():
                    batch.write(block.get(site.path) if site.path else block, site.end, writes)
                if now.after:
                    stream = batch.joined(first_of(block.output), own.streams[layer], now.after)
                    for number in now.after:
                        batch.put(stream, [(number, rows[number].writes[0])])
                    block.output = with_first(block.output, stream)
                if layer == last:
                    # A's own row joins the others for the head, so that a row which is A's own gets the same logits
                    # exactly. Of all rows only the last position is read.
                    stream = torch.cat([own.streams[last][:, -1:], first_of(block.output)[:, -1:]])
                    block.output = with_first(block.output, stream)
            logits = decoder.lm_head.output[:, -1].float().save()
    return logits


def _schedule(recordings: Recordings, rows: Sequence[Row]) -> list[_AtLayer]:
    schedule = [_AtLayer() for _ in range(len(recordings.of(rows[0].clip).streams))]
    inside = []
    for number, row in enumerate(rows):
        first, *others = row.writes
        if first.site.path == BLOCK and first.site.end == "output":
            schedule[first.site.layer].after.append(number)
        else:
            schedule[first.site.layer].before.append(number)
            others = [first, *others]
        inside += [(number, write) for write in others]
    for number, write in sorted(inside, key=lambda item: recordings.rank(item[1].site)):
        schedule[write.site.layer].inside[write.site].append((number, write))
    return schedule


class _Batch:
    """The rows of a trace, whose first position is position `n` of the clip."""

    def __init__(self, n: int):
        self._n, self._is_empty = n, True

    def joined(self, stream: torch.Tensor, own: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        """The stream with a row of A's own `[1, T, hidden]` for each that enters; the first take the place of A."""
        entering = own[:, self._n :].expand(len(numbers), -1, -1)
        joined = entering.clone() if self._is_empty else torch.cat([stream, entering])
        self._is_empty = False
        return joined

    def write(self, envoy: Any, end: str, writes: Sequence[tuple[int, Write]]) -> None:
        """Write into what a module takes or returns."""
        if end == MASK:
            self._write_mask(envoy, writes)
            return
        raw = getattr(envoy, end)
        value = first_of(raw)
        if writes[0][1].replaced:  # what else reads the module's own tensor is to see it as it was
            value = value.clone()
        self.put(value, writes)
        if writes[0][1].replaced:
            setattr(envoy, end, with_first(raw, value))

    def _write_mask(self, attention: Any, writes: Sequence[tuple[int, Write]]) -> None:
        args, kwargs = attention.inputs
        rows = len([*args, *kwargs.values()][0])
        mask = of_inputs(args, kwargs, self._n).expand(rows, -1, -1).clone()
        self.put(mask, writes)
        attention.inputs = (args, {**kwargs, MASK: mask[:, None]})

    def put(self, value: torch.Tensor, writes: Sequence[tuple[int, Write]]) -> None:
        """Set `value [rows, positions, …]` to what is written at those of the positions that are computed."""
        for number, write in writes:
            known = sum(position < self._n for position in write.positions)
            if known == len(write.positions):
                continue
            index = as_index(write.positions[known:], self._n, value.device)
            new = write.values[known:]
            if write.mask is not None:
                new = torch.where(write.mask[known:], new, value[number, index])
            value[number, index] = new
