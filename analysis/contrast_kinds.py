"""Two main experiments against each other: their curves layer by layer, and their hand-over layers.

    found = contrast(Side("prosody", records, pairs), Side("semantic", other_records, other_pairs))
    found.table                    # contrast_prosody_vs_semantic.csv
    found.statistics["all"]        # difference of the hand-over layers with low and high; None with a reason

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
    limits_of_difference,
    mean_of,
    p_values,
    student_t,
)
from analysis.hand_over import LEAST_TEXTS, are_few, first_below, no_height
from analysis.sharing import Draws, Sharing, codes_of, texts_of, variance_of
from errors import UserError

ALL, ELIGIBLE = "all", "eligible"
ENOUGH_SPEAKERS = 8  # with fewer, what holds of these speakers is said, and nothing of others
MOST_UNDEFINED = 0.05  # of the resamples may have no hand-over layer
DEFINITION = (
    "Hand-over layer of the first − that of the second: of each, where the rate of flips to the target first falls "
    "below the middle between its value at the first layer patched and A's own rate. 95 % limits from a bootstrap of "
    "whole texts{speakers} in both together, stretched to the standard error that is right for pairs that share texts."
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
    sharing, split = Sharing.of(codes), len(sides[0].pairs)
    draws = Draws(sharing.n_codes, resamples, seed)
    parts = sharing.part(slice(split)), sharing.part(slice(split, None))
    of_sides = [_curves(side, part, draws) for side, part in zip(sides, parts, strict=True)]
    tables, statistics = [], {}
    for group, curves in zip((ALL, ELIGIBLE), zip(*of_sides, strict=True), strict=True):
        if comparable:
            tables.append(_by_layer(group, sides, curves, sharing, resamples, seed))
        statistics[group] = _hand_over_difference(curves, sharing, draws)
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
        texts.append(np.char.add(f"text {side.within} ", texts_of(side.pairs).astype(str)))
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
    height: Mean  # rate at the first layer less A's own, one cell
    few: bool  # whether its pairs have too few texts for an interval


def _curves(side: Side, sharing: Sharing, draws: Draws) -> list[_Curve]:
    """The curves of all pairs and of the eligible ones."""
    eligible = side.records["eligible"].astype(bool)
    frame = side.records.assign(flips=side.records["flip_to_target"].astype(float), floor=(~eligible).astype(float))
    values = []
    for counted in (eligible | True, eligible):
        flips = by_cell(frame.assign(flips=frame["flips"].where(counted)), side.pairs, "flips")
        floor = by_cell(frame.assign(floor=frame["floor"].where(counted)), side.pairs, "floor").to_numpy()[:, :1]
        values += [flips.to_numpy(), floor, flips.to_numpy()[:, :1] - floor]
    means, n = mean_of(np.hstack(values), sharing, draws), len(flips.columns)
    layers = flips.columns.to_numpy(float) / side.depth
    return [
        _Curve(
            layers,
            means.cells(slice(at, at + n)),
            means.cells(slice(at + n, at + n + 1)),
            means.cells(slice(at + n + 1, at + n + 2)),
            are_few(side.pairs, means.cells(slice(at + n + 1, at + n + 2))),
        )
        for at in (0, n + 2)
    ]


def _by_layer(
    group: str, sides: list[Side], curves: tuple[_Curve, ...], sharing: Sharing, resamples: int, seed: int
) -> pd.DataFrame:
    one, other = (curve.flips for curve in curves)
    low, high = limits_of_difference(one, other, is_rate=True)
    shares, deviations = np.vstack([one.shares, -other.shares]), np.vstack([one.influence, -other.influence])
    p, p_max = p_values(one.value - other.value, deviations, shares, sharing, resamples, seed)
    table = {"pairs": group, "layer": sides[0].layers, "difference": one.value - other.value, "low": low, "high": high}
    return pd.DataFrame(
        table | {"p": p, "p_max": p_max, f"n_{sides[0].name}": one.count, f"n_{sides[1].name}": other.count}
    )


def _hand_over_difference(curves: tuple[_Curve, ...], sharing: Sharing, draws: Draws) -> dict[str, float | str | None]:
    nothing = {"difference": None, "low": None, "high": None}
    found = [_crossing(curve) for curve in curves]
    named = zip(("first", "second"), found, strict=True)
    reasons = [f"the {which} curve {reason}" for which, (*_, reason) in named if reason]
    if reasons:
        return nothing | {"reason": "; ".join(reasons)}
    (at, replicates, influence, _), (other_at, other_replicates, other_influence, _) = found
    difference = float(at - other_at)
    if any(curve.few for curve in curves):
        why = f"too few texts, an interval needs {LEAST_TEXTS} in each of both"
        return nothing | {"difference": difference, "reason": f"no limits: {why}"}
    with np.errstate(invalid="ignore"):
        differences = replicates - other_replicates
    undefined, known = np.isnan(differences).mean(), differences[~np.isnan(differences)]
    if undefined > MOST_UNDEFINED:
        why = f"in {undefined:.0%} of the resamples there is no hand-over layer"
        return nothing | {"difference": difference, "reason": f"no limits: {why}"}
    is_first = np.arange(len(influence) + len(other_influence)) < len(influence)
    sides = np.column_stack([is_first, ~is_first]).astype(float)
    stacked = np.concatenate([influence, -other_influence])[:, None]
    shares = sides / sides.sum(0) @ np.array([[1.0], [-1.0]])
    variance, dof = variance_of(stacked, shares, sharing)
    moved, counts = np.hsplit(draws.sums(np.hstack([sides * stacked, sides]), sharing), 2)
    with np.errstate(invalid="ignore"):
        spread = np.nanstd((moved / (counts / sides.sum(0))).sum(1))
    stretch = float(np.sqrt(variance[0]) / spread * student_t(dof)[0] / Z) if spread > 0 else 1.0
    with np.errstate(invalid="ignore"):
        stretched = difference + stretch * (known - difference)
    low, high = np.quantile(stretched, [0.025, 0.975], method="nearest")
    low, high = (float(limit) if np.isfinite(limit) else None for limit in (low, high))
    return {"difference": difference, "low": low, "high": high, "reason": None}


def _crossing(curve: _Curve) -> tuple[float, np.ndarray, np.ndarray, str | None]:
    """Where the curve first falls below its middle, in all pairs and in each resample, and each pair's influence on it.

    ±∞ where a resample's curve never falls, or is below from the beginning; NaN where it has no height to lose.
    """
    top, floor, rates = curve.flips.value[0], curve.floor.value[0], curve.flips.value
    nothing = (np.nan, np.array([]), np.array([]))
    if why := no_height(curve.height, curve.few):
        return *nothing, f"starts {why}"
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
