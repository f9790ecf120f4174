"""How far patched states are from the states that the model has by itself (natural.csv, sanity_check_natural.json).

    table = natural_table(subject, {"prosody": pairs}, seed)      # a row for each kind, layer and what was written
    natural_check(table)                                          # {"passed": True, "checks": [...]}

The state is the residual stream at the readout position before the final norm. Patched rows have B's span at one layer,
noise rows Gaussian noise with the norm of A's own stream there, as the experiment `noise`.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import nnsight
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from voicepatch.analysis.distances import QUANTILE, check_number, distances, left_out_distances, n_components
from voicepatch.engine.failures import PairFailed
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.pair_input import PairInput, align
from voicepatch.engine.subject import Subject
from voicepatch.types.check import Check, as_stored
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair, clips_of

N_ROWS = 8  # layers that share a forward
OWN, PATCHED, NOISE = "nothing", "B's span", "noise"
COLUMNS = ["written", "layer", "n", "outside_rate", "median_distance", "limit", "n_clips", "n_components"]
NAME = "How many patched readout states lie outside the unpatched ones"


def natural_table(
    subject: Subject, pairs_of: Mapping[str, Sequence[Pair]], seed: int, skip_bad_clips: bool = False
) -> pd.DataFrame:
    """For each kind of pair: kind, written, layer, n, outside_rate, median_distance, limit, n_clips, n_components.

    `outside_rate` is the share of rows farther from the unpatched clips than 95 % of these are from each other. An
    unpatched clip is measured without itself, a patched row without its clips A and B. `UserError` for fewer than 24
    clips of a kind, and for a bad clip, unless those are skipped with their pairs.
    """
    for kind, pairs in pairs_of.items():
        check_number(kind, len(clips_of(pairs)))
    tables = []
    for kind, drawn in pairs_of.items():
        own = _own_states(subject, clips_of(drawn), skip_bad_clips)
        check_number(kind, len(own))
        pairs = [pair for pair in drawn if {pair.a.clip_id, pair.b.clip_id} <= own.keys()]
        tables.append(_of_kind(subject, pairs, own, seed).assign(kind=kind))
    return pd.concat(tables, ignore_index=True)[["kind", *COLUMNS]]


def _of_kind(subject: Subject, pairs: Sequence[Pair], own: Mapping[str, np.ndarray], seed: int) -> pd.DataFrame:
    """The rows of one kind of pair; `own` has the unpatched states of its clips."""
    n, k = len(own), n_components(len(own))
    natural = left_out_distances(np.stack(list(own.values())), k)
    limit = float(np.quantile(natural, QUANTILE))
    far: dict[str, list[np.ndarray]] = {PATCHED: [], NOISE: []}
    with subject.clips.for_pairs(pairs):
        for pair in tqdm(pairs, desc="patched states", unit="pair", delay=2, leave=False):
            its_own = (pair.a.clip_id, pair.b.clip_id)
            others = np.stack([state for clip_id, state in own.items() if clip_id not in its_own])
            ready = align(subject.clips.get(pair.a), subject.clips.get(pair.b))
            for what, written in (
                (PATCHED, _donors(subject, ready)),
                (NOISE, _noise(subject, ready, f"{seed}:natural:{pair.pair_id}")),
            ):
                far[what].append(distances(others, states_of(subject, ready, list(written)), k))
            subject.clips.done(pair)
    rows: list[tuple[str, int | None, np.ndarray]] = [(OWN, None, natural)]
    rows += [(what, layer, column) for what, each in far.items() for layer, column in enumerate(np.stack(each).T)]
    table = [
        (what, layer, len(found), (found > limit).mean(), np.median(found), limit, n, k) for what, layer, found in rows
    ]
    return pd.DataFrame(table, columns=COLUMNS).astype({"layer": "Int64"})


def _own_states(subject: Subject, clips: Sequence[Clip], skip_bad_clips: bool) -> dict[str, np.ndarray]:
    """The unpatched state `[hidden]` of each clip, by its id."""
    found = {}
    with subject.clips.prefetching(clips):
        for clip in tqdm(clips, desc="unpatched states", unit="clip", delay=2, leave=False):
            try:
                inputs = subject.clips.get(clip)
                recorded = subject.engine.record(inputs)
                check_finite(subject.engine, recorded.logits, [(clip, inputs)])
                found[clip.clip_id] = recorded.streams[-1][0, -1].double().cpu().numpy()
            except PairFailed:
                if not skip_bad_clips:
                    raise
            subject.clips.make_room()
    return found


def states_of(subject: Subject, pair: PairInput, written: Sequence[torch.Tensor]) -> np.ndarray:
    """The state `[layers, hidden]` of A with `written[layer]` over the span at each layer, some layers a forward."""
    lm, states = subject.engine.written, []
    size = min(N_ROWS, subject.engine.max_rows or N_ROWS)
    for first in range(0, len(written), size):
        layers = range(first, min(first + size, len(written)))
        rows = replace(pair.a, inputs_embeds=pair.a.inputs_embeds.expand(len(layers), -1, -1))
        with torch.inference_mode():
            with lm.trace(rows):
                for row, layer in enumerate(layers):
                    lm.layers_output[layer][row : row + 1, pair.a_span] = written[layer]
                last = nnsight.save(lm.layers_output[len(written) - 1][:, -1])
        states.append(last.double().cpu().numpy())
    return np.concatenate(states)


def _donors(subject: Subject, pair: PairInput) -> Iterator[torch.Tensor]:
    """B's span after each layer."""
    return (stream[:, pair.b_span] for stream in subject.engine.record(pair.b).streams)


def _noise(subject: Subject, pair: PairInput, seed: str) -> Iterator[torch.Tensor]:
    """Noise with the norm of A's own span after each layer, position by position; the same at every layer."""
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    streams = subject.engine.record(pair.a).streams
    drawn = torch.randn(streams[0][:, pair.a_span].shape, generator=generator).to(streams[0])
    for stream in streams:
        yield drawn * (stream[:, pair.a_span].norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def natural_check(table: pd.DataFrame) -> dict[str, Any]:
    """The table in words, one check a kind; it cannot fail, because no share is right or wrong."""
    checks = []
    for kind, mine in table.groupby("kind", sort=False):
        own = mine[mine["written"] == OWN].iloc[0]
        last = int(mine["layer"].max())
        layers = sorted({0, last // 2, last})
        by_layer = mine.dropna(subset="layer").pivot(index="layer", columns="written", values="outside_rate")
        shares = {what: ", ".join(f"{by_layer[what][layer]:.0%}" for layer in layers) for what in (PATCHED, NOISE)}
        text = (
            f"written at layers {', '.join(map(str, layers))}: with B's span {shares[PATCHED]} lie outside, with noise "
            f"{shares[NOISE]}; of the {own['n_clips']} unpatched clips {own['outside_rate']:.0%} "
            f"({own['n_components']} components)"
        )
        most = by_layer[PATCHED].idxmax()
        text += f"; most with B's span: {by_layer[PATCHED][most]:.0%} at layer {most}"
        checks.append(Check(f"{NAME}, {kind}", True, text, note=True))
    return as_stored(checks)
