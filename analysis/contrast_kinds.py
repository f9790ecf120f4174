"""Two main experiments against each other: their curves layer by layer, and their hand-over layers.

    found = contrast(Side("prosody", records, pairs), Side("semantic", other_records, other_pairs))
    found.table                    # contrast_prosody_vs_semantic.csv
    found.statistics["all"]        # difference of the hand-over layers with low, high and p; None with a reason

The two share texts, clips and speakers, within and between them, so both are resampled together: whole texts, and whole
speakers where there are enough to tell speakers apart from chance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.alike import ranges
from analysis.cells import at_highest_dose, by_cell
from analysis.clusters import (
    RESAMPLES,
    Mean,
    Z,
    against_random_signs,
    codes_of,
    limits_of_difference,
    mean_of,
    normal_deviate,
    resample,
    student_t,
    texts_touched,
    variance_of,
)
from analysis.hand_over import first_below
from errors import UserError

ALL, ELIGIBLE = "all", "eligible"
ENOUGH_SPEAKERS = 8  # with fewer, what holds of these speakers is said, and nothing of others
MOST_UNDEFINED = 0.05  # of the resamples may have no hand-over layer
DEFINITION = (
    "Hand-over layer of the first − that of the second: of each, where the rate of flips to the target first falls "
    "below the middle between its value at the first layer patched and A's own rate. 95 % limits from a bootstrap of "
    "whole texts{speakers} in both together, stretched to the standard error that is right for pairs that share texts; "
    "p from random signs of what each of them adds to the difference."
)


@dataclass(frozen=True)
class Side:
    """One main experiment as a curve. `within` is its data's identity, which its texts and speakers belong to.

    `depth` divides its layers: n_layers − 1 for relative depth.
    """

    name: str
    records: pd.DataFrame
    pairs: pd.DataFrame
    within: str = ""
    depth: float = 1.0

    @property
    def layers(self) -> list[int]:
        return sorted(int(layer) for layer in self.records["layer"].unique())


@dataclass(frozen=True)
class Contrast:
    """`table` has a row a layer and group of pairs, and none where the layers differ; `statistics` the hand-over."""

    table: pd.DataFrame
    statistics: dict[str, Any]


def contrast(one: Side, other: Side, seed: int = 42, resamples: int = RESAMPLES) -> Contrast:
    """One − other, over all pairs and over the eligible ones, each at its highest dose.

    Columns of the table: pairs, layer, difference, low, high (95 %), p, p_max (corrected for all layers, as in
    `analysis.intervals.contrast`), n_ONE, n_OTHER. `UserError` where the layers differ, unless depths are compared.
    """
    comparable = one.layers == other.layers and one.depth == other.depth
    if not comparable and one.depth == other.depth:
        raise UserError(
            f"{one.name} was patched at layers {ranges(one.layers)}, {other.name} at {ranges(other.layers)}; run "
            "both at the same --layers to contrast them"
        )
    sides = [_of_measured(side) for side in (one, other)]
    codes, n_speakers = _codes(sides)
    split = len(sides[0].pairs)
    weights = resample(codes, resamples, seed)
    tables, statistics = [], {}
    for group in (ALL, ELIGIBLE):
        curves = [
            _curve(side, group, codes[rows], weights[:, rows])
            for side, rows in zip(sides, (slice(split), slice(split, None)), strict=True)
        ]
        if comparable:
            tables.append(_by_layer(group, sides, curves, codes, split, resamples, seed))
        statistics[group] = _hand_over_difference(curves, codes, weights, split, seed)
    speakers = " and whole speakers" if n_speakers else ""
    statistics |= {"definition": DEFINITION.format(speakers=speakers), "speakers_resampled": n_speakers, "seed": seed}
    return Contrast(pd.concat(tables) if tables else pd.DataFrame(), statistics)


def _of_measured(side: Side) -> Side:
    records = at_highest_dose(side.records)
    pairs = side.pairs[side.pairs["pair_id"].isin(set(records["pair_id"]))]
    return Side(side.name, records, pairs, side.within, side.depth)


def _codes(sides: list[Side]) -> tuple[np.ndarray, int]:
    """Texts, and speakers where there are enough, that each pair hangs on; and how many speakers those are."""
    texts, speakers = [], []
    for side in sides:
        two = side.pairs[["text_id_a", "text_id_b"]].astype(str).to_numpy(object)
        texts.append(np.char.add(f"text {side.within} ", two.astype(str)))
        has = [column for column in ("speaker_a", "speaker_b") if column in side.pairs]
        named = side.pairs[has].reindex(columns=["speaker_a", "speaker_b"]).to_numpy(object)
        full = np.char.add(f"speaker {side.within} ", named.astype(str))
        # A text stands in where no speaker is named: a row hangs on it already.
        speakers.append(np.where(pd.isna(named) | (named == ""), texts[-1], full))
    texts, speakers = np.vstack(texts), np.vstack(speakers)
    named = {name for name in speakers.ravel() if name.startswith("speaker ")}
    if len(named) < ENOUGH_SPEAKERS:
        return codes_of(texts), 0
    return codes_of(np.hstack([texts, speakers])), len(named)


@dataclass(frozen=True)
class _Curve:
    layers: np.ndarray  # in units of depth
    flips: Mean
    floor: Mean  # A's own rate, one cell
    values: np.ndarray


def _curve(side: Side, group: str, codes: np.ndarray, weights: np.ndarray) -> _Curve:
    counted = side.records["eligible"].astype(bool) | (group == ALL)
    frame = side.records.assign(
        flips=side.records["flip_to_target"].astype(float).where(counted),
        floor=(~side.records["eligible"].astype(bool)).astype(float).where(counted),
    )
    flips = by_cell(frame, side.pairs, "flips")
    floor = by_cell(frame, side.pairs, "floor").to_numpy()[:, :1]
    values = flips.to_numpy()
    layers = flips.columns.to_numpy(float) / side.depth
    return _Curve(layers, mean_of(values, codes, weights), mean_of(floor, codes, weights), values)


def _by_layer(
    group: str, sides: list[Side], curves: list[_Curve], codes: np.ndarray, split: int, resamples: int, seed: int
) -> pd.DataFrame:
    one, other = (curve.flips for curve in curves)
    low, high = limits_of_difference(one, other, codes[:split], codes[split:], is_rate=True)
    shares, deviations = np.vstack([one.shares, -other.shares]), np.vstack([one.influence, -other.influence])
    p, p_max = _p_values(one.value - other.value, deviations, shares, codes, resamples, seed)
    table = {"pairs": group, "layer": sides[0].layers, "difference": one.value - other.value, "low": low, "high": high}
    return pd.DataFrame(
        table | {"p": p, "p_max": p_max, f"n_{sides[0].name}": one.count, f"n_{sides[1].name}": other.count}
    )


def _p_values(
    difference: np.ndarray, deviations: np.ndarray, shares: np.ndarray, codes: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of each column's difference, and of the largest of all columns.

    Each is the normal deviate of Student's t, held against the deviations of whole texts with random signs. The degrees
    of freedom are those of the variance and have no least, unlike in `sign_flips`: here pairs of one text meet pairs of
    two, and with ten texts a least of 6 rejected in a quarter of simulated experiments without an effect.
    """
    variance, dof = variance_of(deviations, shares, codes)
    t = np.divide(np.abs(difference), np.sqrt(variance), out=np.zeros(len(difference)), where=variance > 1e-20)
    return against_random_signs(
        normal_deviate(t, np.maximum(dof, 1)), texts_touched(codes).T @ deviations, resamples, seed
    )


def _hand_over_difference(
    curves: list[_Curve], codes: np.ndarray, weights: np.ndarray, split: int, seed: int
) -> dict[str, float | str | None]:
    nothing = {"difference": None, "low": None, "high": None, "p": None}
    found = [_crossing(curve) for curve in curves]
    named = zip(("first", "second"), found, strict=True)
    reasons = [f"the {which} curve {reason}" for which, (*_, reason) in named if reason]
    if reasons:
        return nothing | {"reason": "; ".join(reasons)}
    (at, replicates, influence, _), (other_at, other_replicates, other_influence, _) = found
    difference = at - other_at
    with np.errstate(invalid="ignore"):
        differences = replicates - other_replicates
        counted = (weights[:, :split] @ influence / weights[:, :split].mean(1)) - (
            weights[:, split:] @ other_influence / weights[:, split:].mean(1)
        )
    undefined = np.isnan(differences).mean()
    known = differences[~np.isnan(differences)]
    stacked = np.concatenate([influence, -other_influence])
    shares = np.concatenate([np.full(split, 1 / split), np.full(len(stacked) - split, -1 / (len(stacked) - split))])
    variance, dof = variance_of(stacked[:, None], shares[:, None], codes)
    spread = np.nanstd(counted)
    if undefined > MOST_UNDEFINED or not dof[0] > 0:
        why = f"in {undefined:.0%} of the resamples there is no hand-over layer" if dof[0] > 0 else "too few texts"
        return nothing | {"difference": difference, "reason": f"no limits: {why}"}
    stretch = float(np.sqrt(variance[0]) / spread * student_t(dof)[0] / Z) if spread > 0 else 1.0
    with np.errstate(invalid="ignore"):
        moved = difference + stretch * (known - difference)
    low, high = np.quantile(moved, [0.025, 0.975], method="nearest")
    low, high = (float(limit) if np.isfinite(limit) else None for limit in (low, high))
    p, _ = _p_values(np.array([difference]), stacked[:, None], shares[:, None], codes, len(weights), seed)
    return {"difference": float(difference), "low": low, "high": high, "p": float(p[0]), "reason": None}


def _crossing(curve: _Curve) -> tuple[float, np.ndarray, np.ndarray, str | None]:
    """Where the curve first falls below its middle, in all pairs and in each resample, and each pair's influence on it.

    ±∞ where a resample's curve never falls, or is below from the beginning; NaN where it has no height to lose.
    """
    top, floor, rates = curve.flips.value[0], curve.floor.value[0], curve.flips.value
    nothing = (np.nan, np.array([]), np.array([]))
    if not top > floor:
        return *nothing, "starts no higher than A's own rate"
    level = (top + floor) / 2
    at = first_below(rates[None], np.array([level]), curve.layers)[0]
    if not np.isfinite(at):
        return *nothing, f"does not fall below {level:.3g}"
    tops, floors = curve.flips.replicates[:, 0], curve.floor.replicates[:, 0]
    levels = np.where(tops > floors, (tops + floors) / 2, np.nan)
    behind = int(np.searchsorted(curve.layers, at))
    before = max(behind - 1, 0)
    step = curve.layers[behind] - curve.layers[before]
    way = (at - curve.layers[before]) / step if step else 0.0
    slope = (rates[behind] - rates[before]) / step if step else -1.0
    there = (1 - way) * curve.flips.influence[:, before] + way * curve.flips.influence[:, behind]
    middle = (curve.flips.influence[:, 0] + curve.floor.influence[:, 0]) / 2
    return float(at), first_below(curve.flips.replicates, levels, curve.layers), (middle - there) / slope, None
