"""Two experiments against each other, layer by layer and in their hand-over layers.

    contrast_with_control(main, control, "flip_to_target")   # contrast_NAME_vs_CONTROL.csv
    found = contrast(Side("prosody", records, pairs), Side("semantic", other_records, other_pairs))
    found.table                    # contrast_prosody_vs_semantic.csv
    found.statistics["all"]        # difference of the hand-over layers with low and high; None with a reason

The two share texts, clips and speakers, within and between them, so both are resampled together: whole texts and, in
the contrast of two main experiments, whole speakers where there are enough to generalise to others.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import at_highest_dose, by_cell, ranges
from voicepatch.analysis.clusters import RESAMPLES, Mean, limits_of_difference, mean_of, p_values
from voicepatch.analysis.hand_over import curves_of, hand_over_difference
from voicepatch.analysis.sharing import Draws, Sharing, codes_of, texts_of
from voicepatch.errors import UserError

ALL, ELIGIBLE = "all", "eligible"
ENOUGH_SPEAKERS = 8  # with fewer, the speakers are fixed: the result holds for these and not for others
DEFINITION = (
    "Hand-over layer of the first − that of the second: of each, where the rate of flips to the target first falls "
    "below the middle between its value at the first layer patched and A's own rate. 95 % limits from a bootstrap of "
    "whole texts{speakers} in both together, stretched to the standard error that is right for pairs that share texts."
)


@dataclass(frozen=True)
class Side:
    """One experiment of a contrast. Its texts and speakers belong to the data set `within`.

    `depth` divides its layers: n_layers − 1 for relative depth.
    """

    name: str
    records: pd.DataFrame
    pairs: pd.DataFrame
    within: str = ""
    depth: float = 1.0

    @property
    def layers(self) -> list[int]:
        """The layers patched."""
        return sorted(int(layer) for layer in self.records["layer"].unique())


@dataclass(frozen=True)
class Contrast:
    """`table` has a row a layer and group of pairs, and none where the layers differ; `statistics` the hand-over."""

    table: pd.DataFrame
    statistics: dict[str, Any]


def contrast_with_control(
    main: Side, control: Side, column: str = "flip_to_target", seed: int = 42, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Main − control in the mean of `column`, one row a layer that both have, each at its highest dose.

    Columns: layer, difference, low, high (95 %), p, p_max (corrected for all layers), n_pairs. A `column` whose name
    begins with “flip” is a rate. Where both have the same recipients in the same order, the pairs that both have are
    compared; otherwise the means over all pairs of each. `UserError` where the two have no layer in common.
    """
    same_recipients = list(main.pairs["clip_a"]) == list(control.pairs["clip_a"])
    values = [by_cell(at_highest_dose(side.records), side.pairs, column) for side in (main, control)]
    layers = values[0].columns.intersection(values[1].columns).sort_values()
    if layers.empty:
        raise UserError("the main experiment and its control have no layer in common; run both at the same --layers")
    x, y = (table[layers].to_numpy() for table in values)
    if same_recipients:
        x, y = (np.where(np.isnan(x - y), np.nan, one) for one in (x, y))
    sharing = Sharing.of(codes_of(np.vstack([texts_of(side.pairs) for side in (main, control)])))
    draws = Draws(sharing.n_codes, resamples, seed)
    one, other = (mean_of(part, rows, draws) for part, rows in zip((x, y), sharing.split(len(x)), strict=True))
    table = _by_layer(one, other, sharing, column.startswith("flip"), resamples, seed, permutes=True)
    return pd.DataFrame({"layer": layers, **table, "n_pairs": one.count})


def contrast(one: Side, other: Side, seed: int = 42, resamples: int = RESAMPLES) -> Contrast:
    """One − other of two main experiments, over all pairs and over the eligible ones, each at its highest dose.

    Columns of the table: pairs, layer, difference, low, high (95 %), p, p_max (corrected for all layers), n_ONE,
    n_OTHER. `UserError` where the layers differ, unless depths are compared.
    """
    comparable = one.layers == other.layers and one.depth == other.depth
    if not comparable and one.depth == other.depth:
        raise UserError(
            f"{one.name} was patched at layers {ranges(one.layers)}, {other.name} at {ranges(other.layers)}; run "
            "both at the same --layers to contrast them"
        )
    sides = [_with_records(side) for side in (one, other)]
    codes, n_speakers = _codes(sides)
    sharing = Sharing.of(codes)
    draws = Draws(sharing.n_codes, resamples, seed)
    parts = sharing.split(len(sides[0].pairs))
    tables: list[pd.DataFrame] = []
    statistics: dict[str, Any] = {}
    of_sides = [
        curves_of(side.records, side.pairs, part, draws, side.depth) for side, part in zip(sides, parts, strict=True)
    ]
    for group, (first, second) in zip((ALL, ELIGIBLE), zip(*of_sides, strict=True), strict=True):
        statistics[group] = hand_over_difference(first, second, sharing, draws)
        if comparable:
            flips = [first.flips, second.flips]
            table = {
                "pairs": group,
                "layer": one.layers,
                **_by_layer(first.flips, second.flips, sharing, True, resamples, seed, permutes=False),
            }
            counts = {f"n_{side.name}": mean.count for side, mean in zip(sides, flips, strict=True)}
            tables.append(pd.DataFrame(table | counts))
    speakers = " and whole speakers" if n_speakers else ""
    statistics |= {"definition": DEFINITION.format(speakers=speakers), "speakers_resampled": n_speakers, "seed": seed}
    return Contrast(pd.concat(tables) if tables else pd.DataFrame(), statistics)


def _by_layer(
    one: Mean, other: Mean, sharing: Sharing, is_rate: bool, resamples: int, seed: int, permutes: bool
) -> dict[str, np.ndarray]:
    low, high = limits_of_difference(one, other, is_rate)
    p, p_max = p_values(one, other, sharing, resamples, seed, permutes)
    return {"difference": one.value - other.value, "low": low, "high": high, "p": p, "p_max": p_max}


def _with_records(side: Side) -> Side:
    records = at_highest_dose(side.records)
    return replace(side, records=records, pairs=side.pairs[side.pairs["pair_id"].isin(set(records["pair_id"]))])


def _codes(sides: list[Side]) -> tuple[np.ndarray, int]:
    """The texts of each pair, and its speakers where there are enough; and how many speakers those are."""
    texts, speakers = [], []
    for side in sides:
        texts.append(np.char.add(f"text {side.within} ", texts_of(side.pairs).astype(str)))
        named = side.pairs.reindex(columns=["speaker_a", "speaker_b"]).to_numpy(object)
        full = np.char.add(f"speaker {side.within} ", named.astype(str))
        # Where no speaker is named, the text stands in: the pair has it already.
        speakers.append(np.where(pd.isna(named) | (named == ""), texts[-1], full))
    stacked_texts, stacked_speakers = np.vstack(texts), np.vstack(speakers)
    n_speakers = sum(name.startswith("speaker ") for name in np.unique(stacked_speakers))
    if n_speakers < ENOUGH_SPEAKERS:
        return codes_of(stacked_texts), 0
    return codes_of(np.hstack([stacked_texts, stacked_speakers])), n_speakers
