"""Two experiments against each other, layer by layer and in the areas under their curves.

    contrast_with_control(main, control, "flip_to_target")   # contrast_NAME_vs_CONTROL.csv
    found = contrast(Side("prosody", records, pairs), Side("semantic", other_records, other_pairs))
    found.table                    # contrast_prosody_vs_semantic.csv
    found.statistics["all"]        # difference of the areas with low, high and p; None with a reason

The two share texts, clips and speakers, within and between them, so both are one sample: whole texts, and whole
speakers where there are enough to generalise to others.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.areas import DEFINITION, area_difference
from voicepatch.analysis.cells import at_highest_dose, by_cell, ranges
from voicepatch.analysis.clusters import RESAMPLES, Mean, limits_of_difference, mean_of, p_values
from voicepatch.analysis.hand_over import curve_of
from voicepatch.analysis.samples import sample_of, too_few_texts
from voicepatch.analysis.sharing import Draws, Sharing
from voicepatch.errors import UserError

ALL, ELIGIBLE = "all", "eligible"


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
    """`table` has a row a layer and group of pairs, and none where the layers differ; `statistics` are of the areas."""

    table: pd.DataFrame
    statistics: dict[str, Any]


def contrast_with_control(
    main: Side, control: Side, column: str = "flip_to_target", seed: int = 42, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Main − control in the mean of `column`, one row a layer that both have, each at its highest dose.

    Columns: layer, difference, low, high (95 %), p, p_max (corrected for all layers), n_pairs, reason (why there is no
    p, as with fewer than six texts). A `column` whose name begins with “flip” is a rate. Where both have the same
    recipients in the same order, the pairs that both have are compared; otherwise the means over all pairs of each.
    `UserError` where the two have no layer in common.
    """
    same_recipients = list(main.pairs["clip_a"]) == list(control.pairs["clip_a"])
    values = [by_cell(at_highest_dose(side.records), side.pairs, column) for side in (main, control)]
    layers = values[0].columns.intersection(values[1].columns).sort_values()
    if layers.empty:
        raise UserError("the main experiment and its control have no layer in common; run both at the same --layers")
    x, y = (table[layers].to_numpy() for table in values)
    if same_recipients:
        x, y = (np.where(np.isnan(x - y), np.nan, one) for one in (x, y))
    sample = sample_of(main.pairs, control.pairs)
    sharing = sample.sharing
    draws = Draws(sharing.n_codes, resamples, seed)
    one, other = (mean_of(part, rows, draws) for part, rows in zip((x, y), sharing.split(len(x)), strict=True))
    table = _by_layer(one, other, sharing, column.startswith("flip"), resamples, seed)
    return _tested(pd.DataFrame({"layer": layers, **table, "n_pairs": one.count}), sample.texts)


def contrast(one: Side, other: Side, seed: int = 42, resamples: int = RESAMPLES) -> Contrast:
    """One − other of two main experiments, over all pairs and over the eligible ones, each at its highest dose.

    Columns of the table: pairs, layer, difference, low, high (95 %), p, p_max (corrected for all layers), n_ONE,
    n_OTHER, reason. `UserError` where the layers differ, unless depths are compared.
    """
    comparable = one.layers == other.layers and one.depth == other.depth
    if not comparable and one.depth == other.depth:
        raise UserError(
            f"{one.name} was patched at layers {ranges(one.layers)}, {other.name} at {ranges(other.layers)}; run "
            "both at the same --layers to contrast them"
        )
    sides = [_with_records(side) for side in (one, other)]
    sample = sample_of(*(side.pairs for side in sides), within=[side.within for side in sides])
    sharing, n = sample.sharing, len(sides[0].pairs)
    draws = Draws(sharing.n_codes, resamples, seed)
    tables: list[pd.DataFrame] = []
    statistics: dict[str, Any] = {}
    parts = list(zip(sides, (sample.rows(slice(n)), sample.rows(slice(n, None))), strict=True))
    for group in (ALL, ELIGIBLE):
        curves = [curve_of(side.records, side.pairs, part, group == ELIGIBLE, side.depth) for side, part in parts]
        statistics[group] = area_difference(curves[0], curves[1])
        if comparable:
            first, second = (
                mean_of(curve.values, rows, draws) for curve, rows in zip(curves, sharing.split(n), strict=True)
            )
            by_layer = _by_layer(first, second, sharing, True, resamples, seed)
            counts = {f"n_{one.name}": first.count, f"n_{other.name}": second.count}
            table = pd.DataFrame({"pairs": group, "layer": one.layers, **by_layer, **counts})
            tables.append(_tested(table, sample.texts))
    speakers = " and each speaker" if sample.n_speakers else ""
    statistics |= {"definition": DEFINITION.format(speakers=speakers), "n_speakers": len(sample.named)}
    statistics |= {"speakers_resampled": sample.n_speakers}
    return Contrast(pd.concat(tables) if tables else pd.DataFrame(), statistics | {"seed": seed})


def _by_layer(
    one: Mean, other: Mean, sharing: Sharing, is_rate: bool, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    low, high = limits_of_difference(one, other, is_rate)
    p, p_max = p_values(one, other, sharing, is_rate, resamples, seed)
    return {"difference": one.value - other.value, "low": low, "high": high, "p": p, "p_max": p_max}


def _tested(table: pd.DataFrame, texts: np.ndarray) -> pd.DataFrame:
    """A table with the reason why it has no p, where the rows have too few texts for a test."""
    reason = too_few_texts(texts, "a test")
    return table.assign(p=np.nan, p_max=np.nan, reason=reason) if reason else table.assign(reason="")


def _with_records(side: Side) -> Side:
    records = at_highest_dose(side.records)
    return replace(side, records=records, pairs=side.pairs[side.pairs["pair_id"].isin(set(records["pair_id"]))])
