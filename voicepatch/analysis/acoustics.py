"""Whether pairs that differ more in sound flip until later layers.

acoustic_table(results)      # a row a kind of pair and feature; the reason where a file does not fit; None without one

The distances are those of `python cli.py pairs --kind KIND --acoustics` in the run's directory.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from voicepatch.analysis.cells import at_highest_dose
from voicepatch.analysis.contrasts import Side
from voicepatch.analysis.results import KINDS, Results
from voicepatch.audio.acoustics import FEATURES
from voicepatch.errors import UserError
from voicepatch.store.reading import read_table

CAPTION = (
    "Acoustic distance of the pairs, in standard deviations over the clips, and its rank correlation with the last "
    "layer at which a pair flips to the target (eligible pairs that flip at any layer, and are compared)"
)
pair_file: Callable[[str], str] = "pair_acoustics_{}.csv".format


def acoustic_table(results: Results) -> pd.DataFrame | str | None:
    """Columns kind, feature, pairs, without a value, mean, median, Spearman's correlation, and its number of pairs."""
    rows = []
    for kind in KINDS:
        main, path = results.main(kind), results.run / pair_file(kind)
        if main is None:
            continue
        try:
            table = read_table(path)
            if table is None:
                continue
            distances = pd.DataFrame(table).set_index("pair_id")[list(FEATURES)].replace("", np.nan).astype(float)
        except (UserError, ValueError, TypeError, KeyError):
            distances = pd.DataFrame()
        if list(distances.index) != main.pairs["pair_id"].tolist():
            return (
                f"{path.name} does not hold the {kind} pairs of this run; run `python cli.py pairs --kind {kind} "
                "--acoustics` in it again"
            )
        last = last_flip_layers(main.side)
        rows += [{"kind": kind, "feature": feature, **_row(distances[feature], last)} for feature in FEATURES]
    return pd.DataFrame(rows) if rows else None


def last_flip_layers(side: Side) -> pd.Series:
    """pair_id → the last layer at which an eligible pair flips to the target; pairs that never do are not there."""
    records = at_highest_dose(side.records)
    flips = records[records["eligible"] & records["flip_to_target"]]
    return flips.groupby("pair_id")["layer"].max()


def _row(distances: pd.Series, last: pd.Series) -> dict[str, float]:
    known = distances.dropna()
    both = pd.concat([known, last], axis="columns", join="inner").to_numpy(float)
    varies = len(both) > 2 and (np.ptp(both, axis=0) > 0).all()
    return {
        "pairs": len(known),
        "without a value": len(distances) - len(known),
        "mean": known.mean(),
        "median": known.median(),
        "Spearman's correlation": float(spearmanr(both).statistic) if varies else np.nan,
        "pairs correlated": len(both),
    }
