"""Where a curve of answers falls, as one number: the area under it, in layers; tested by leaving out texts.

    curve = Falling(layers, values, floor, texts, speakers)
    area_of(curve)                      # {"area": 5.2, "low": 4.6, "high": 5.8, "reason": None, ...}
    area_difference(curve, other)       # {"difference": 1.0, "low": 0.2, "high": 1.9, "p": 0.02, "reason": None, ...}

The area is x₀ + Σ_l w_l (r_l − f) / (r_x₀ − f): r_l is the mean of the values at layer l, f that of the floor, x₀ the
first layer, and w the weights of the trapezoid rule. A curve that falls at once from its start to its floor between
the layers k − 1 and k has the area k − 0.5. docs/statistics.md has the derivation and the simulated error rates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from voicepatch.analysis.rounding import number
from voicepatch.analysis.samples import too_few_texts
from voicepatch.analysis.sharing import Sharing, codes_of

DEFINITION = (
    "The area under a curve, in layers: its height above its floor at each layer, as a share of the height at the "
    "first layer, summed over the layers by the trapezoid rule, plus the first layer. 95 % limits and p are Student's, "
    "with a standard error from leaving out each text{speakers} with all its pairs, in both curves of a difference."
)


@dataclass(frozen=True)
class Falling:
    """A curve that falls from its first value towards a floor.

    `values` [rows, layers] and `floor` [rows] are 0 or 1; a row with a NaN does not count. `layers` are in units of
    depth. `texts` [rows, texts a row] and `speakers` [rows, speakers a row] are names; with None, the speakers are no
    sample. `floor_name` is used in reasons.
    """

    layers: np.ndarray
    values: np.ndarray
    floor: np.ndarray
    texts: np.ndarray
    speakers: np.ndarray | None = None
    floor_name: str = "its floor"

    @property
    def known(self) -> "Falling":
        """The rows without a NaN."""
        rows = ~np.isnan(np.column_stack([self.values, self.floor])).any(1)
        speakers = None if self.speakers is None else self.speakers[rows]
        values, floor, texts = self.values[rows], self.floor[rows], self.texts[rows]
        return replace(self, values=values, floor=floor, texts=texts, speakers=speakers)

    @property
    def columns(self) -> np.ndarray:
        """The values and the floor side by side, [rows, layers + 1]."""
        return np.column_stack([self.values, self.floor])

    @property
    def step(self) -> float:
        """The mean distance of two layers; 0 for a single one."""
        return float((self.layers[-1] - self.layers[0]) / max(1, len(self.layers) - 1))


def area_of(curve: Falling) -> dict[str, Any]:
    """The area under one curve: `area`, `low`, `high` (95 %), `p` (None), `reason`, `n_texts`, `speakers_resampled`."""
    curve = curve.known
    first, last = curve.layers[[0, -1]]
    found = _tested([curve], lambda areas: areas[0], curve.step, (first, last))
    return {"area": found.pop("value"), **found, "p": None}


def area_difference(one: Falling, other: Falling) -> dict[str, Any]:
    """The area of one − that of the other: `difference` in place of `area`, and the other entries of `area_of`.

    The difference is None where a curve has no height, the limits and p where they cannot be given; `reason` says why.
    The limits exclude 0 where p is below 0.05, and only there.
    """
    one, other = one.known, other.known
    reach = max(one.layers[-1] - one.layers[0], other.layers[-1] - other.layers[0])
    found = _tested([one, other], lambda areas: areas[0] - areas[1], max(one.step, other.step), (-reach, reach))
    return {"difference": found.pop("value"), **found}


def _tested(
    curves: Sequence[Falling],
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    step: float,
    possible: tuple[float, float],
) -> dict[str, Any]:
    """A statistic of the curves' areas with limits and p; `possible` are its smallest and its largest value."""
    sampled = Sampled.of(curves)
    found: dict[str, Any] = {"value": None, "low": None, "high": None, "p": None, "reason": None}
    found |= {"n_texts": sampled.n_texts, "speakers_resampled": sampled.n_speakers}
    names = ("the curve",) if len(curves) == 1 else ("the first curve", "the second curve")
    for name, curve in zip(names, curves, strict=True):
        if why := "has one layer alone" if len(curve.layers) < 2 else no_height(curve):
            return found | {"reason": f"{name} {why}"}

    def of_means(means: list[np.ndarray]) -> np.ndarray:
        return statistic([_areas(mean, curve.layers) for mean, curve in zip(means, curves, strict=True)])

    value = found["value"] = float(of_means([curve.columns.mean(0)[None] for curve in curves])[0])
    for name, curve in zip(names, curves, strict=True):
        if why := too_few_texts(curve.texts):
            return found | {"reason": why if len(curves) == 1 else f"{why} in {name}"}
    error, dof = sampled.error(of_means), sampled.dof
    if not np.isfinite(error):
        return found | {"reason": "without one of the texts or speakers, a curve has no height"}
    error = max(error, step / sampled.n_texts)  # as where one text differs from all others by a layer
    reach = special.stdtrit(dof, 0.975) * error
    p = 2 * float(special.stdtr(dof, -abs(value) / error))
    low, high = np.clip([value - reach, value + reach], *possible)
    return found | {"low": float(low), "high": float(high), "p": p}


def _areas(means: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """The area under each curve of means [curves, layers + 1], the last column the floor; NaN without a height."""
    above = means[:, :-1] - means[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(above[:, :1] > 0, above / above[:, :1], np.nan)
    return layers[0] + np.trapezoid(shares, layers, axis=1)


def no_height(curve: Falling) -> str:
    """Why a curve has no height that it can lose: the mean first value is not above that of the floor; "" if it is.

    With too few texts for an interval, the height itself decides.
    """
    curve = curve.known
    if not len(curve.values):
        return "has no rows"
    means = curve.columns.mean(0)
    height = means[0] - means[-1]
    if not height > 0:
        return f"starts no higher than {curve.floor_name}"
    if too_few_texts(curve.texts):
        return ""
    sampled = Sampled.of([curve])
    error, n = sampled.error(lambda found: found[0][:, 0] - found[0][:, -1]), sampled.n_texts
    reach = special.stdtrit((min(n, sampled.n_speakers) if sampled.n_speakers else n) - 1, 0.975) * error
    if height - reach > 0:
        return ""
    low, high = max(height - reach, -1), min(height + reach, 1)
    limited = f"95 % interval {number(100 * low, '.1f')} to {number(100 * high, '.1f')}"
    above = f"starts above {curve.floor_name} by {100 * height:.1f} percentage points ({limited})"
    return f"{above}, so it may not be above it at all"


@dataclass(frozen=True)
class Sampled:
    """Some curves with the texts, and speakers where they are a sample, that the rows of all of them share."""

    curves: Sequence[Falling]
    sharing: Sequence[Sharing]  # of the rows of each curve; all have the same keys
    n_texts: int
    n_speakers: int  # 0 where they are fixed

    @classmethod
    def of(cls, curves: Sequence[Falling]) -> "Sampled":
        texts, n_speakers = np.vstack([curve.texts for curve in curves]).astype(str), 0
        names = texts
        if all(curve.speakers is not None for curve in curves):
            speakers = np.vstack([curve.speakers for curve in curves]).astype(str)
            names, n_speakers = np.hstack([texts, np.char.add("speaker ", speakers)]), len(np.unique(speakers))
        rest, parts = Sharing.of(codes_of(names)), []
        for curve in curves:
            part, rest = rest.split(len(curve.values))
            parts.append(part)
        return cls(curves, parts, len(np.unique(texts)), n_speakers)

    @property
    def ways(self) -> list[np.ndarray]:
        """The texts of all rows, and their speakers where they are a sample."""
        texts = np.vstack([curve.texts for curve in self.curves])
        return [texts, np.vstack([curve.speakers for curve in self.curves])] if self.n_speakers else [texts]

    @property
    def dof(self) -> float:
        """Degrees of freedom of the error of an area: the number of texts (or speakers) that count, less 1.

        Each counts as much as its rows add to the heights of the curves; one that never flips says nothing on where a
        curve falls. The number is Kish's (1965, Survey Sampling): the square of the sum over the sum of the squares.
        """
        heights = [curve.values[:, 0] - curve.floor for curve in self.curves]
        weights = np.concatenate([height / height.sum() for height in heights])
        numbers = []
        for names in self.ways:
            codes = codes_of(names)
            sums = np.zeros(codes.max() + 1)
            for of_rows in codes.T:
                there = of_rows >= 0
                np.add.at(sums, of_rows[there], weights[there])
            numbers.append(sums.sum() ** 2 / (sums**2).sum())
        return max(1.0, min(numbers) - 1)

    def error(self, statistic: Callable[[list[np.ndarray]], np.ndarray]) -> float:
        """Standard error of a statistic of the curves' means, from leaving out texts.

        Left out are the rows of each text, and of each set of texts that some row has; the squared changes of the
        statistic are summed with the signs of inclusion and exclusion. The sum is at least that over single texts
        divided by the most texts that a row has. Speakers that are a sample count as texts do (docs/statistics.md).
        """
        keys = self.sharing[0]
        without = [_without(part, curve.columns) for part, curve in zip(self.sharing, self.curves, strict=True)]
        value = statistic([curve.columns.mean(0)[None] for curve in self.curves])[0]
        squares = (statistic(without) - value) ** 2
        single = squares[: keys.n_codes].sum()
        return float(np.sqrt(max(keys.sign @ squares, single / keys.touches.sum(1).max())))


def _without(sharing: Sharing, columns: np.ndarray) -> np.ndarray:
    """The column means of the rows without those of each key, [keys, columns]."""
    counted = np.column_stack([columns, np.ones(len(columns))])
    left = counted.sum(0) - sharing.sums(counted)
    with np.errstate(invalid="ignore", divide="ignore"):
        return left[:, :-1] / left[:, -1:]
