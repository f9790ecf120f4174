"""How sure the curves are, when pairs share clips and texts: intervals, contrasts, the hand-over layer.

    layer_intervals(records, pairs)                              # 95 % limits beside analysis.metrics.layer_metrics
    contrast(records, control_records, pairs, control_pairs)     # contrast_NAME_vs_CONTROL.csv
    hand_over(records, pairs, suffix=(suffix_records, suffix_pairs))

A text takes part in several pairs, so pairs are no independent observations, and intervals that take them for such are
too narrow. Whole texts are resampled instead. A pair hangs on its recipient's and its donor's text: on one where they
are the same (prosody pairs), on two otherwise; everything here follows from that list of texts a pair.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics import derived
from errors import UserError

RESAMPLES = 2000

# What gets an interval: the column it is the mean of, and whether over eligible pairs alone.
INTERVALS = {
    "flip_to_target_rate": ("flip_to_target", False),
    "flip_from_base_rate": ("flip_from_base", False),
    "flip_to_target_rate_eligible": ("flip_to_target", True),
    "delta_logit_target_mean": ("delta_logit_target", False),
    "normalised_recovery_mean": ("recovery", True),
}
HAND_OVER = (
    "The layer, interpolated between the layers patched, at which the rate of flips to the target first falls below "
    "the middle between its value at the first layer patched and its floor, how often A unpatched gives the target; "
    "for the suffix, the layer at which its own rate first rises above that same middle."
)
_Z = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-12  # sums of equal parts that cancel leave less than this


def cluster_weights(pairs: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """How often each pair counts in each resample of texts, [resamples, pairs].

    As many texts as there are are drawn with replacement, and a pair's weight is the product of the counts of its
    texts: count(text) where A and B have the same, count(text of A) × count(text of B) where they have not (the
    pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics 1:386). A text that is A's in some pairs and B's in
    others has one count for both roles, not one a role: the same words act in both, and only so does the spread contain
    what pairs that share a text across roles have in common (Snijders & Borgatti 1999, Connections 22:61). Where no
    text has both roles this is resampling the two sides separately. The order of the rows changes nothing.
    """
    return _resample(_codes(_texts(pairs)), resamples, seed)


def layer_intervals(
    records: pd.DataFrame, pairs: pd.DataFrame, seed: int = 42, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """95 % limits `…_low` and `…_high` of the metrics in INTERVALS, one row a layer and dose, as in `layer_metrics`.

    The standard error is the bootstrap's. Around a mean the limits are Student's; around a rate they are Wilson's with
    as many pairs as would, if independent, have that standard error (Korn & Graubard 1998, Survey Methodology 24:193;
    Dean & Pagano 2015, J. Survey Stat. Methodol. 3:484). So a rate of 0 or 1 has a width as well: there the ratio of
    pairs to effective pairs is that of the other layers together, and with no such layer the texts count instead of the
    pairs. A mean that is the same in each pair, as Δlogit at the last layer, has limits of no width. NaN where fewer
    than two texts have a say.
    """
    pairs = pairs.sort_values("pair_id")
    weights = cluster_weights(pairs, resamples, seed)
    records = records.assign(recovery=derived(records)["recovery"])
    limits = {}
    for metric, (column, eligible_only) in INTERVALS.items():
        counted = records["eligible"] | (not eligible_only)
        values = _by_cell(records.assign(counted=records[column].astype(float).where(counted)), pairs, "counted")
        mean = _mean(values.to_numpy(), _codes(_texts(pairs)), weights)
        limits[f"{metric}_low"], limits[f"{metric}_high"] = _limits(
            mean, column.startswith("flip"), _design_effect(mean)
        )
    return pd.DataFrame(limits, index=values.columns).reset_index()


def contrast(
    main: pd.DataFrame,
    control: pd.DataFrame,
    main_pairs: pd.DataFrame,
    control_pairs: pd.DataFrame,
    column: str = "flip_to_target",
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Main − control in the mean of `column`, one row a layer that both have, each at its highest dose.

    Columns: layer, difference, low, high (95 %), p, p_max, n_pairs. A `column` whose name begins with “flip” is a rate.
    Where the control's pairs have the main pairs' recipients in the same order, the pairs that both have are compared;
    else (`no-conflict`) the two means over all of each one's pairs.

    The limits join each curve's own, less what the curves share through common texts (Newcombe 1998, Statistics in
    Medicine 17:2635; Zou & Donner 2008, ibid. 27:1693). For p the sign of a text's whole contribution is flipped at
    random; p_max compares with the largest of all layers, so that p_max < 0.05 at any layer happens in 5 % of runs
    without an effect (Nichols & Holmes 2002, Human Brain Mapping 15:1). With one text a pair this is a permutation
    test; with several it is its analogue, a multiplier bootstrap of deviations from the mean.
    UserError where the two have no layer in common.
    """
    shadows = list(main_pairs["clip_a"]) == list(control_pairs["clip_a"])
    texts, other_texts = _texts(main_pairs), _texts(control_pairs)
    main, control = _by_cell(_full_dose(main), main_pairs, column), _by_cell(_full_dose(control), control_pairs, column)
    layers = main.columns.intersection(control.columns).sort_values()
    if layers.empty:
        raise UserError("the main experiment and its control have no layer in common; run both at the same --layers")
    x, y = main[layers].to_numpy(), control[layers].to_numpy()
    if shadows:
        x, y = (np.where(np.isnan(x - y), np.nan, values) for values in (x, y))

    codes = _codes(np.vstack([texts, other_texts]))
    first, second = np.split(codes, [len(x)])
    weights = np.split(_resample(codes, resamples, seed), [len(x)], axis=1)
    one, other = _mean(x, first, weights[0]), _mean(y, second, weights[1])
    low, high = _limits_of_difference(one, other, first, second, is_rate=column.startswith("flip"))

    shares, deviations = np.vstack([one.shares, -other.shares]), np.vstack([one.influence, -other.influence])
    scores = shares * np.nan_to_num(np.vstack([x, y]) - (one.value + other.value) / 2)
    p, p_max = _sign_flips(scores, deviations, shares, codes, resamples, seed)
    table = {"layer": layers, "difference": one.value - other.value, "low": low, "high": high, "p": p, "p_max": p_max}
    return pd.DataFrame(table | {"n_pairs": one.count})


def hand_over(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    suffix: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The layer at which the answer leaves the span, and (of `suffix`, records and pairs) where it reaches the suffix.

    `layer`, `low`, `high` (95 %, percentiles of the resamples), `reason`, `suffix` with the same four or None, `level`
    (the rate that is crossed) and `definition`, which is HAND_OVER. `layer` is None where there is no such layer and
    `reason` then says why; a limit is None where it lies beyond the layers patched or cannot be told, and there is no
    width between the limits where all pairs agree. At the highest dose, over all pairs.
    """
    experiments = [(records, pairs)] if suffix is None else [(records, pairs), suffix]
    codes = _codes(np.vstack([_texts(its_pairs) for _, its_pairs in experiments]))
    weights = _resample(codes, resamples, seed)
    curves = []
    for (its_records, its_pairs), rows in zip(experiments, (slice(len(pairs)), slice(len(pairs), None)), strict=False):
        flips = _by_cell(_full_dose(its_records), its_pairs, "flip_to_target")
        curves.append((flips.columns.to_numpy(float), _mean(flips.to_numpy(), codes[rows], weights[:, rows])))
    was_target = 1 - _by_cell(_full_dose(records), pairs, "eligible").to_numpy()[:, :1]
    floor, top = _mean(was_target, codes[: len(pairs)], weights[:, : len(pairs)]), curves[0][1]

    level = (top.value[0] + floor.value[0]) / 2
    tops, floors = top.replicates[:, 0], floor.replicates[:, 0]
    levels = np.where(tops > floors, (tops + floors) / 2, np.nan)
    if top.value[0] > floor.value[0]:
        found = [_crossing(*curve, level, levels, up) for curve, up in zip(curves, (False, True), strict=False)]
    else:
        why = "at the first layer patched the rate is not above its floor, so there is no height to lose half of"
        found = [{"layer": None, "low": None, "high": None, "reason": why} for _ in curves]
    return found[0] | {
        "suffix": found[1] if suffix is not None else None,
        "level": float(level),
        "definition": HAND_OVER,
    }


def _crossing(
    layers: np.ndarray, curve: "_Mean", level: float, levels: np.ndarray, rising: bool
) -> dict[str, float | str | None]:
    sign = 1 if rising else -1
    nothing = {"layer": None, "low": None, "high": None}
    at = _first_above(sign * curve.value[None], sign * np.array([level]), layers)[0]
    if at == np.inf:
        return nothing | {"reason": f"the rate does not {'rise above' if rising else 'fall below'} {level:.3g}"}
    if at == -np.inf:
        return nothing | {"reason": f"the rate is above {level:.3g} at the first layer patched already"}
    ats = _first_above(sign * curve.replicates, sign * levels, layers)
    ats, undefined = ats[~np.isnan(ats)], np.isnan(ats).mean()
    behind = np.searchsorted(layers, at)
    spread = np.nanstd(curve.replicates[:, behind])
    # As in _mean, and for few texts as Student's t is wider than the normal.
    stretch = curve.error[behind] / spread * _t(curve.dof[behind]) / _Z if spread > 0 else 1.0
    if undefined > 0.05 or not np.isfinite(stretch) or np.isnan(curve.error[behind]):
        return nothing | {"layer": float(at), "reason": None}
    limits = at + stretch * (np.quantile(ats, [0.025, 0.975], method="nearest") - at)
    low, high = (float(np.clip(x, layers[0], layers[-1])) if np.isfinite(x) else None for x in limits)
    return {"layer": float(at), "low": low, "high": high, "reason": None}


def _first_above(curves: np.ndarray, levels: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Where each curve first exceeds its level: −∞ from the beginning, ∞ never, NaN where there is no level."""
    above = curves > levels[:, None]
    to, rows = above.argmax(1), np.arange(len(curves))
    before = np.maximum(to - 1, 0)
    start, end = curves[rows, before], curves[rows, to]
    way = np.divide(levels - start, end - start, out=np.ones(len(curves)), where=end != start)
    at = np.where(to > 0, layers[before] + way * (layers[to] - layers[before]), -np.inf)
    at[~above.any(1)] = np.inf
    at[np.isnan(levels)] = np.nan
    return at


def _full_dose(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["patch_alpha"] == records["patch_alpha"].max()].drop(columns="patch_alpha")


def _by_cell(records: pd.DataFrame, pairs: pd.DataFrame, column: str) -> pd.DataFrame:
    """[pairs, layers], or with doses [pairs, (layer, dose)]; NaN where there is no record."""
    cell = [name for name in ("layer", "patch_alpha") if name in records]
    table = records.pivot(index="pair_id", columns=cell if len(cell) > 1 else cell[0], values=column)
    return table.reindex(pairs["pair_id"]).astype(float).sort_index(axis=1)


def _texts(pairs: pd.DataFrame) -> np.ndarray:
    return pairs[["text_id_a", "text_id_b"]].astype(str).to_numpy(object)


def _codes(texts: np.ndarray) -> np.ndarray:
    """The texts a row hangs on as numbers; −1 in place of one that the row has already."""
    codes = np.unique(texts.astype(str), return_inverse=True)[1].reshape(texts.shape)
    for way in range(1, codes.shape[1]):
        codes[(codes[:, :way] == codes[:, [way]]).any(1), way] = -1
    return codes


def _resample(codes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    n_texts = codes.max() + 1
    counts = np.random.default_rng(seed).multinomial(n_texts, np.full(n_texts, 1 / n_texts), size=resamples)
    counts = np.hstack([counts, np.ones((resamples, 1), int)])  # what −1 picks
    return counts[:, codes].prod(2).astype(float)


def _touched(codes: np.ndarray, n_texts: int | None = None) -> np.ndarray:
    """[rows, texts]: 1 where the row hangs on the text."""
    touched = np.zeros((len(codes), (codes.max() + 1 if n_texts is None else n_texts) + 1))
    touched[np.arange(len(codes))[:, None], codes] = 1
    return touched[:, :-1]


@dataclass(frozen=True)
class _Mean:
    """Column means of [rows, cells] with what is known of their error; each field [cells] unless it says otherwise."""

    value: np.ndarray
    count: np.ndarray
    error: np.ndarray  # standard error, from the resamples
    dof: np.ndarray  # degrees of freedom of that; 0 where fewer than two texts have a say
    shares: np.ndarray  # [rows, cells] weight of a row: 1 / count, 0 where it is missing
    influence: np.ndarray  # [rows, cells] share × deviation from the mean
    replicates: np.ndarray  # [resamples, cells]


def _mean(values: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> _Mean:
    """Column means of values [rows, cells], where a missing value is NaN.

    With product weights the resamples' variance counts what is particular to a pair 2^texts − 1 times (three times for
    two texts, Owen 2007). The ratio takes it back to once: that of `_variance` to the sum which such weights estimate.
    """
    there = ~np.isnan(values)
    count = there.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(count, there / count, 0)
        value = np.nan_to_num(values).sum(0) / count
        influence = shares * np.nan_to_num(values - value)
        replicates = weights @ np.nan_to_num(values) / (weights @ there)
        common = _touched(codes) @ _touched(codes).T
        counted = _products(influence, 2.0**common - 1)
        variance, dof = _variance(influence, shares, codes)
        ratio = np.where(counted > 0, variance / counted, 1)
        usable = ~np.isnan(replicates)
        centred = np.where(usable, replicates - (np.nan_to_num(replicates).sum(0) / usable.sum(0)), 0)
        error = np.sqrt((centred**2).sum(0) / usable.sum(0) * ratio)
    return _Mean(value, count, np.where(dof > 0, error, np.nan), dof, shares, influence, replicates)


def _products(influence: np.ndarray, over: np.ndarray) -> np.ndarray:
    return np.einsum("il,il->l", influence, over @ influence)


def _variance(influence: np.ndarray, shares: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a sum of influences, and the degrees of freedom of that estimate.

    It is the sum of their products over all pairs of rows that have a text in common (Aronow, Samii & Assenova 2015,
    Political Analysis 23:564). Deviations from a mean of the same data are too small, and unequal texts are fewer than
    they look: the factor and the degrees of freedom are those that are right where texts and pairs have effects of
    equal variance (Bell & McCaffrey 2002, Survey Methodology 28:169). With two texts a pair that sum can come out near
    or below 0; the sum of the texts' squares, which counts a pair once for each text, is never negative, and a quarter
    of it is the least.
    """
    touched = _touched(codes)
    common = touched @ touched.T
    shared, working = (common > 0).astype(float), common + np.eye(len(codes))
    distinct, which = np.unique(shares.T, axis=0, return_inverse=True)
    factors, dofs = np.ones(len(distinct)), np.zeros(len(distinct))
    for i, h in enumerate(distinct):
        sides = np.column_stack([h > 0, h < 0]).astype(float)
        centre = np.diag((h != 0).astype(float)) - (sides / np.maximum(sides.sum(0), 1)) @ sides.T
        form = centre @ (shared * np.outer(h, h)) @ centre @ working
        if (expected := np.trace(form)) > 1e-12:
            factors[i] = max(1.0, h @ working @ h / expected)
            dofs[i] = expected**2 / (form * form.T).sum()
    least = ((touched.T @ influence) ** 2).sum(0) / 4
    which = which.ravel()
    return np.maximum(_products(influence, shared) * factors[which], least), dofs[which]


def _t(dof: np.ndarray) -> np.ndarray:
    """Student's 97.5 % quantile, within 1 % from 3 degrees of freedom on (Abramowitz & Stegun 26.7.5)."""
    v, z = np.where(np.asarray(dof) > 0, dof, np.nan).astype(float), _Z
    terms = [z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384]
    return sum(term / v**power for power, term in enumerate(terms))


def _design_effect(*means: _Mean) -> np.ndarray:
    """Variance over that of as many independent pairs, of all cells together; NaN where no cell varies."""
    independent = np.concatenate([mean.value * (1 - mean.value) / np.maximum(mean.count, 1) for mean in means])
    variance = np.concatenate([mean.error**2 for mean in means])
    varies = (independent > 0) & ~np.isnan(variance)
    return variance[varies].sum() / independent[varies].sum() if varies.any() else np.nan


def _limits(mean: _Mean, is_rate: bool, pooled: float) -> tuple[np.ndarray, np.ndarray]:
    t, p = _t(mean.dof), mean.value
    if not is_rate:
        return p - t * mean.error, p + t * mean.error
    with np.errstate(invalid="ignore", divide="ignore"):
        independent = p * (1 - p) / mean.count
        at_an_end = mean.count / (mean.dof + 1) if np.isnan(pooled) else pooled
        design = np.where(independent > 0, mean.error**2 / independent, at_an_end)
        n = mean.count / np.maximum(design, 1)
        middle = (p + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t / (1 + t**2 / n) * np.sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    return np.clip(middle - half, 0, p), np.clip(middle + half, p, 1)


def _limits_of_difference(
    one: _Mean, other: _Mean, codes: np.ndarray, other_codes: np.ndarray, is_rate: bool
) -> tuple[np.ndarray, np.ndarray]:
    n_texts = max(codes.max(), other_codes.max()) + 1
    shared = (_touched(codes, n_texts) @ _touched(other_codes, n_texts).T > 0).astype(float)
    together = np.einsum("il,il->l", one.influence, shared @ other.influence)
    spreads = one.error * other.error
    r = np.clip(np.divide(together, spreads, out=np.zeros(len(spreads)), where=spreads > 0), -1, 1)
    pooled = _design_effect(one, other) if is_rate else np.nan
    (low, high), (other_low, other_high) = _limits(one, is_rate, pooled), _limits(other, is_rate, pooled)

    def reach(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a**2 + b**2 - 2 * r * a * b, 0))

    value = one.value - other.value
    return (
        value - reach(one.value - low, other_high - other.value),
        value + reach(high - one.value, other.value - other_low),
    )


def _sign_flips(
    scores: np.ndarray,
    deviations: np.ndarray,
    shares: np.ndarray,
    codes: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of a sum of scores, by column and for the largest of all columns.

    `scores` are not centred: flipped by text they are an exact test where each row has one text. With several, flipping
    them would count the effect as spread, so the centred `deviations` are flipped.
    """
    touched = _touched(codes)
    total = np.where(np.abs(scores.sum(0)) > _ROUNDING, np.abs(scores.sum(0)), 0)
    one_way = (touched.sum(1) == 1).all()
    flipped = touched.T @ (scores if one_way else deviations)
    size = np.sqrt((flipped**2).sum(0))
    if one_way:
        observed = np.divide(total, size, out=np.zeros(len(size)), where=size > _ROUNDING)
    else:
        variance, dof = _variance(deviations, shares, codes)
        t = np.divide(total, np.sqrt(variance), out=np.where(total > 0, np.inf, 0.0), where=variance > _ROUNDING**2)
        # Calibrated by simulation: with fewer than 6 the test rejects in 1 to 2 % of experiments where 5 % are due.
        dof = np.maximum(dof, min(6, touched.shape[1] - 1))
        # Student's t as the normal deviate of the same probability (Wallace 1959, Ann. Math. Stat. 30:1124).
        observed = (8 * dof + 1) / (8 * dof + 3) * np.sqrt(dof * np.log1p(t**2 / dof))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(flipped)))
    drawn = np.abs(signs @ np.divide(flipped, size, out=np.zeros_like(flipped), where=size > _ROUNDING))
    reached = observed * (1 - 1e-9)  # equal sums that differ in the last bit
    least = 2.0 ** (1 - len(flipped))  # so many signs cannot tell more
    p = [(1 + (by_chance >= reached).sum(0)) / (1 + resamples) for by_chance in (drawn, drawn.max(1, keepdims=True))]
    return np.maximum(p[0], least), np.maximum(p[1], least)
