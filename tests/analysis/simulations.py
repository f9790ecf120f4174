"""How often intervals hold the truth and tests reject, in simulated experiments: the table of docs/validity.md.

    python -m tests.analysis.simulations --experiments 100 --markdown
    python -m tests.analysis.simulations --cells "difference of areas; map" --experiments 400

Each cell draws experiments whose truth is known and computes what a run would report. A cell misses where its share
lies outside the limits that its measure has.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from tests.analysis.simulated import (
    CONTROLS,
    control_without_effect,
    effects_without_effect,
    one_text_a_pair,
    pair_list,
    records_of,
    two_texts_a_pair,
)
from tests.analysis.simulated_kinds import DESIGNS, KINDS, LAYERS, SPEAKER, area, draw, true_rates, truth
from voicepatch.analysis.areas import area_difference, area_of
from voicepatch.analysis.cell_tests import cell_tests
from voicepatch.analysis.clusters import limits, mean_of
from voicepatch.analysis.contrasts import ALL, contrast
from voicepatch.analysis.hand_over import curve_of, first_below, hand_over
from voicepatch.analysis.layer_metrics import layer_intervals
from voicepatch.analysis.samples import ENOUGH_SPEAKERS, sample_of
from voicepatch.analysis.sharing import Draws

TEXTS = (6, 8, 12, 30)
COVERS, FALSE, POWER, FOUND, TESTED = "covers", "false positives", "power", "found", "tested"
# A share within these limits is as it should be. Least power, by the number of texts, is that where all texts flip. An
# experiment without a test rejects nothing, and is not part of the coverage.
ALLOWED = {COVERS: (0.93, 0.99), FALSE: (0.0, 0.06), FOUND: (0.8, 1.0), TESTED: (0.0, 1.0)}
LEAST_POWER = dict(zip(TEXTS, (0.31, 0.43, 0.58, 0.78), strict=True))
RESAMPLES = 199  # of a bootstrap; runs take 2,000
Outcomes = dict[str, float]


@dataclass(frozen=True)
class Cell:
    """`run(random, n_texts)` simulates one experiment and gives a share (or a truth value) by measure, without those
    for which the experiment has no interval or test."""

    group: str
    design: str
    run: Callable[[np.random.Generator, int], Outcomes]
    texts: tuple[int, ...] = TEXTS


def n_pairs(n_texts: int) -> int:
    """Three pairs a text, at least 24 and at most 90."""
    return int(np.clip(3 * n_texts, 24, 90))


def within(found: dict, truth: float, first: float = -np.inf, last: float = np.inf) -> bool:
    low, high = (end if found[side] is None else found[side] for side, end in (("low", first), ("high", last)))
    return low <= truth <= high


def one_curve(random: np.random.Generator, n_texts: int, kind: str, n_speakers: int, design: str) -> Outcomes:
    """Whether the bands, the hand-over layer and the area of one curve hold the truth, for these or all speakers."""
    fixed = tuple(random.normal(0, SPEAKER, n_speakers)) if 1 < n_speakers < ENOUGH_SPEAKERS else None
    (side,) = draw(random, n_texts, 0.0, n_pairs(n_texts), n_speakers, design=design, of_speakers=fixed, kinds=(kind,))
    if fixed is None:
        rates, own = true_rates(kind, 0.0, n_speakers, design)
    else:  # the truth for these speakers is another one in each experiment
        rates, own = true_rates.__wrapped__(kind, 0.0, 1, design, fixed, n_pairs=10_000)
    pairs = pair_list(side.pairs["text_id_a"], side.pairs["text_id_b"]).assign(**side.pairs)
    flips, eligible = (
        side.records[column].to_numpy().reshape(len(pairs), -1) for column in ("flip_to_target", "eligible")
    )
    records = records_of(pairs, flips, eligible[:, 0])
    bands = layer_intervals(records, pairs, resamples=RESAMPLES)
    inside = (bands["flip_to_target_rate_low"] <= rates) & (rates <= bands["flip_to_target_rate_high"])
    outcomes: Outcomes = {f"bands {COVERS}": inside.mean()}
    layer = hand_over(records, pairs, resamples=RESAMPLES)
    if layer["layer"] is not None and layer["reason"] is None:
        at = first_below(rates[None], np.array([(rates[0] + own) / 2]), LAYERS.astype(float))[0]
        outcomes[f"hand-over {COVERS}"] = within(layer, at)
    of_area = area_of(curve_of(records, pairs, sample_of(pairs), eligible=False))
    if of_area["reason"] is None:
        outcomes[f"area {COVERS}"] = within(of_area, area(rates, own))
    return outcomes


def difference(random, n_texts, n_speakers, design, later) -> Outcomes:
    """Prosody − semantic: the difference of the areas."""
    sides = draw(random, n_texts, later, n_pairs(n_texts), n_speakers, design=design)
    sample, n = sample_of(*(side.pairs for side in sides)), len(sides[0].pairs)
    parts = (sample.rows(slice(n)), sample.rows(slice(n, None)))
    curves = [curve_of(side.records, side.pairs, part, False) for side, part in zip(sides, parts, strict=True)]
    return _of_difference(area_difference(*curves), truth(later, n_speakers, design)[1], later)


def _of_difference(found: dict, true: float, later: float) -> Outcomes:
    is_tested = found["reason"] is None
    rejects = {POWER if later else FALSE: is_tested and found["p"] < 0.05} if later or abs(true) < 0.02 else {}
    covers = {COVERS: within(found, true)} if is_tested else {}
    return {TESTED: is_tested, **covers, **rejects}


def two_runs(random, n_texts, design, same_texts) -> Outcomes:
    """Two models with the same true curve; which texts are early and late differs."""
    one, other = (draw(random, n_texts, 0.0, n_pairs(n_texts), design=design, kinds=("prosody",))[0] for _ in range(2))
    other = replace(other, within="" if same_texts else "another corpus")
    found = contrast(one, other, seed=int(random.integers(1 << 30)), resamples=RESAMPLES)
    outcomes = _of_difference(found.statistics[ALL], 0.0, 0.0)
    table = found.table[found.table["pairs"] == ALL]
    return {**outcomes, "false positives by layer": bool((table["p_max"] < 0.05).any())}


def control(random, n_texts, kind, name, n_speakers) -> Outcomes:
    """A control with the main experiment's rates; few speakers have the same effect in both, many another one."""
    speakers = None
    if n_speakers > 1:
        one, other = random.normal(0, 0.7, (2, n_speakers, 1))
        speakers = np.broadcast_to(np.array([one, one if n_speakers < ENOUGH_SPEAKERS else other]), (2, n_speakers, 8))
    p_max = control_without_effect(random, kind, name, n_texts, speakers, n_pairs(n_texts))
    return {FALSE: p_max.min() < 0.05}


SKEWED = {
    "normal": lambda random, size: random.standard_normal(size),
    "exponential": lambda random, size: random.exponential(size=size) - 1,
    "log-normal, skewness 2.9": lambda random, size: (random.lognormal(0, 0.7, size) - np.exp(0.245)) / 1.015,
}


def skewed_mean(random, n_texts, kind, distribution, share) -> Outcomes:
    """The mean of skewed values; `share` of the variance is the texts'. Ten means at a time."""
    n, of = n_pairs(n_texts), SKEWED[distribution]
    a = random.permutation(np.arange(n) % n_texts)
    b = a if kind == "prosody" else (a + random.integers(1, n_texts, n)) % n_texts
    of_a, of_b = of(random, (n_texts, 10)), of(random, (n_texts, 10))
    of_texts = of_a[a] if kind == "prosody" else (of_a[a] + of_b[b]) / np.sqrt(2)
    values = np.sqrt(share) * of_texts + np.sqrt(1 - share) * of(random, (n, 10))
    sharing = sample_of(pair_list(a, b)).sharing
    low, high = limits(mean_of(values, sharing, Draws(sharing.n_codes, RESAMPLES, 1)), is_rate=False)
    return {COVERS: ((low <= 0) & (0 <= high)).mean()}


def a_map(random, n_texts, two, n_cells, n_speakers) -> Outcomes:
    """No cell has an effect; then one has, three times as large as the standard deviation of the pairs' effects."""
    texts = two_texts_a_pair(n_texts, n_pairs(n_texts), random) if two else one_text_a_pair(n_texts, 3)
    effects = effects_without_effect(texts, n_cells, random)
    speakers = None
    if n_speakers > 1:
        who = random.integers(n_speakers, size=len(texts))
        effects, speakers = effects + random.standard_normal((n_speakers, n_cells))[who], who[:, None]
    seed = int(random.integers(1 << 30))
    false = cell_tests(effects, texts, seed, speakers, draws=499).p_max
    if np.isnan(false).any():
        return {}
    effects[:, 3] += 3 * effects[:, 3].std()
    planted = cell_tests(effects, texts, seed, speakers, draws=499).p_max
    return {FALSE: (false < 0.05).any(), FOUND: planted[3] < 0.05}


def cells() -> list[Cell]:
    """All cells of the table, group by group."""
    found = []
    for kind in KINDS:
        for n_speakers, who in (
            (1, "one speaker"),
            (2, "these 2 speakers"),
            (4, "these 4 speakers"),
            (10, "10 speakers"),
        ):
            run = partial(one_curve, kind=kind, n_speakers=n_speakers, design="plain")
            found.append(Cell("one curve", f"{kind}, {who}", run))
    for design in [*DESIGNS][1:]:
        run = partial(one_curve, kind="semantic", n_speakers=1, design=design)
        found.append(Cell("one curve", f"semantic, {design}", run))
    for design in DESIGNS:
        for later in (0.0, 1.0):
            shift = "one layer apart" if later else "no difference"
            run = partial(difference, n_speakers=1, design=design, later=later)
            found.append(Cell("difference of areas", f"{design}, {shift}", run))
    for later in (0.0, 1.0):
        shift = "one layer apart" if later else "no difference"
        run = partial(difference, n_speakers=10, design="plain", later=later)
        found.append(Cell("difference of areas", f"10 speakers, {shift}", run))
    for design in DESIGNS:
        for same in (True, False):
            of = "the same texts" if same else "other texts"
            found.append(Cell("two runs", f"{design}, {of}", partial(two_runs, design=design, same_texts=same)))
    for kind, name in CONTROLS:
        found.append(Cell("control, p_max", f"{kind}, {name}", partial(control, kind=kind, name=name, n_speakers=1)))
    for n_speakers in (2, 4, 10):
        run = partial(control, kind="prosody", name="random donor", n_speakers=n_speakers)
        found.append(Cell("control, p_max", f"prosody, random donor, {n_speakers} speakers", run))
    for distribution in SKEWED:
        for kind in KINDS:
            for share in (0.0, 0.5, 0.9):
                run = partial(skewed_mean, kind=kind, distribution=distribution, share=share)
                found.append(Cell("mean", f"{distribution}, {kind}, {share:.0%} the texts'", run))
    for two, n_speakers in ((False, 1), (True, 1), (False, 10)):
        for n_cells in (40, 400):
            run = partial(a_map, two=two, n_cells=n_cells, n_speakers=n_speakers)
            what = f"{'two texts' if two else 'one text'} a pair, {n_cells} cells"
            found.append(Cell("map", what + (", 10 speakers" if n_speakers > 1 else ""), run))
    return found


def simulate(cell: Cell, n_texts: int, experiments: int, seed: int = 0) -> pd.DataFrame:
    """The share of each measure of a cell, one row each: group, design, measure, texts, share, n (experiments), misses.

    A measure without an interval or a test in half of the experiments or more has no share.
    """
    random = np.random.default_rng([seed, n_texts, *cell.group.encode(), *cell.design.encode()])
    table = pd.DataFrame([cell.run(random, n_texts) for _ in range(experiments)])
    rows = []
    for measure, values in table.items():
        values = values.dropna().astype(float)
        low, high = allowed(str(measure), cell.design, n_texts)
        share = values.mean() if len(values) >= experiments / 2 else np.nan
        rows.append([cell.group, cell.design, measure, n_texts, share, len(values), bool(share < low or share > high)])
    return pd.DataFrame(rows, columns=["group", "design", "measure", "texts", "share", "n", "misses"])


def allowed(measure: str, design: str, n_texts: int) -> tuple[float, float]:
    """The smallest and the largest share that is as it should be."""
    if measure == POWER:
        return (LEAST_POWER[n_texts] if design.startswith("all texts flip") else 0.0), 1.0
    return next(limits for what, limits in ALLOWED.items() if what in measure)


def as_markdown(table: pd.DataFrame) -> str:
    """A row for each design and measure, a column for each number of texts; bold where a cell misses, – without one."""
    shown = table.assign(
        text=[
            "–" if np.isnan(share) else f"**{100 * share:.1f}**" if misses else f"{100 * share:.1f}"
            for share, misses in zip(table["share"], table["misses"], strict=True)
        ]
    )
    keys = ["group", "design", "measure"]
    wide = shown.pivot(index=keys, columns="texts", values="text")
    wide = wide.loc[pd.MultiIndex.from_frame(shown[keys].drop_duplicates())].fillna("–")
    lines = [f"| | | | {' | '.join(f'{n} texts' for n in wide)} |", "|" + "---|" * (3 + wide.shape[1])]
    lines += [f"| {' | '.join([*key, *row])} |" for key, row in zip(wide.index, wide.to_numpy(), strict=True)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", help="groups of cells, separated by semicolons; all without it")
    parser.add_argument("--experiments", type=int, default=100, help="simulated experiments of each cell")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/validity.md instead of plain rows")
    options = parser.parse_args()
    groups = [name.strip() for name in options.cells.split(";") if name.strip()]
    known = list(dict.fromkeys(cell.group for cell in cells()))
    if unknown := set(groups) - set(known):
        parser.error(f"--cells {', '.join(sorted(unknown))}: the groups are {', '.join(known)}")
    chosen, tables, start = [cell for cell in cells() if not groups or cell.group in groups], [], time.monotonic()
    for number, cell in enumerate(chosen):
        tables += [simulate(cell, n_texts, options.experiments) for n_texts in cell.texts]
        line = f"{number + 1} of {len(chosen)}, {time.monotonic() - start:.0f} s: {cell.group}, {cell.design}"
        print(line, file=sys.stderr, flush=True)
    table = pd.concat(tables, ignore_index=True)
    print(as_markdown(table) if options.markdown else table.to_string(index=False))


if __name__ == "__main__":
    main()
