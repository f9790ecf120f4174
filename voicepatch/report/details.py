"""How a run was made and what came out, in more sentences than a methods section has room for.

details(run)        # one paragraph for each subject
"""

from typing import Any

import pandas as pd

from voicepatch.analysis.cell_tests import DRAWS
from voicepatch.analysis.cells import is_one_curve
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.experiment_results import TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.rounding import BOTH_OPEN, with_interval
from voicepatch.analysis.words_and_voice import contrast_of, headline, midpoints
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.headings import no_interval, selection
from voicepatch.report.answer import interval_in, outcome, rate_in
from voicepatch.report.experiments import Run
from voicepatch.report.prose import differs, doses_of, intervals, is_resampled, model_of, what_it_did
from voicepatch.text import counted, list_of


def details(run: Run) -> list[str]:
    """What the methods text leaves out, from the configuration, the checks and the metrics of this run."""
    model, data = run.config["model"], run.config["data"]
    several = [label for label, entry in run.documents["tokens"].get("labels", {}).items() if entry["multi_token"]]
    measured = [experiment for experiment in run.others if experiment.records is not None]
    what = (
        f"Model: {model_of(run)}, hidden size {model['hidden_size']}, weights sha256 {model['sha256'][:12]}. Data: "
        f"sha256 {data['sha256'][:12]}. "
        + (f"Labels of several tokens: {list_of(several)}. " if several else "")
        + _engines(run)
    )
    paragraphs = [
        what,
        *_patching(run),
        *(" ".join(_of_main(run, experiment)) for experiment in run.mains),
        " ".join(filter(None, [hand_over_means(run), *_areas(run), *headline(run.results), midpoints(run.results)])),
        " ".join(intervals(run)),
        *_maps(run),
        *(line for experiment in measured for line in run.own(experiment, "sentences")),
        *(f"{what_it_did(run, one)}: {outcome(one)}." for one in measured if not one.settings["reads_only"]),
        *_self_patch(run),
    ]
    return list(filter(None, paragraphs))


def _areas(run: Run) -> list[str]:
    """What a difference of curves is, where the run has one."""
    found = run.results.cached(contrast_of)
    return [found.statistics["definition"]] if isinstance(found, Contrast) else []


def _maps(run: Run) -> list[str]:
    """How the cells of maps were tested, and how many have an effect."""
    maps = {one.name: run.results.cached(cell_map, one.name) for one in run.experiments}
    tested = {name: found.table for name, found in maps.items() if found is not None and not found.reason}
    if not tested:
        return []
    counts = [f"{table['marked'].sum()} of {len(table)} in {name}" for name, table in tested.items()]
    return [
        f"The cells of a map were tested together: each text was left out with its pairs, its deviations got random "
        f"signs ({DRAWS:,} draws), and studentised means were compared with the largest of all cells, stepping down. "
        f"Cells count whose p_max is below .05 and whose effect is at least 5 % of the whole span's, or else of the "
        f"map's largest: {list_of(counts)}."
    ]


def _engines(run: Run) -> str:
    """How the forward passes were run, with the experiments' names where they differ."""
    ways: dict[str, list[str]] = {}
    for one in run.experiments:
        engine = "as written, one trace a layer" if run.as_written(one) else f"engine {one.settings['engine']}"
        way = f"{engine}, {one.settings['dtype']} on {one.settings['device']}"
        ways.setdefault(way, []).append(one.name)
    named = [f"{way} ({list_of(names)})" for way, names in ways.items()] if len(ways) > 1 else list(ways)
    return f"Forward passes: {'; '.join(named)}."


def _patching(run: Run) -> list[str]:
    if not run.mains:
        return []
    alphas = sorted({dose for experiment in run.mains for dose in experiment.doses})
    sites = list(dict.fromkeys(experiment.site for experiment in run.mains if experiment.site))
    cut = "A's first min(len A, len B) audio positions"
    whole = "A's audio positions, B's values interpolated linearly along time to their number,"
    where = {whole if is_resampled(experiment) else cut: experiment.kind for experiment in run.mains}
    places = list(where) if len(where) == 1 else [f"{place} ({kind} pairs)" for place, kind in where.items()]
    return [
        f"For a recipient A and a donor B, the {list_of(sites) or 'residual stream'} of decoder layer l at "
        f"{list_of(places)} was set to (1 − α)·A + α·B with α = {doses_of(alphas)}."
    ]


def _of_main(run: Run, experiment: ExperimentResults) -> list[str]:
    """How the pairs were sampled, and what came out."""
    settings, kind = experiment.settings, experiment.kind
    construction = run.documents["construction"].get(kind)
    possible = f" of {construction['pairs_possible']} possible" if construction else ""
    drawn = f"{len(experiment.pairs)}{possible} were sampled"
    if tried := (construction or {}).get("answered"):
        drawn = f"{tried['tried']}{possible} were tried, of which {tried['passed']} passed"
    speaker = "A and B by the same speaker where the data name speakers" if settings["same_speaker"] else "any speakers"
    direction = "both directions run" if settings["both_directions"] else "direction drawn"
    selected = "".join(f", {words}" for words in selection([settings]))
    failed = f" Of these, {len(experiment.failed)} gave no record and are left out." if experiment.failed else ""
    sampled = (
        f"{kind.capitalize()} pairs: {drawn} (seed {settings['pair_sampling_seed']}, "
        f"{speaker}, {direction}{selected}), {differs(run, kind)}.{failed}"
    )
    why = [] if experiment.records is None else [f"{line[0].upper()}{line[1:]}." for line in no_interval(experiment)]
    if experiment.records is None or not is_one_curve(experiment.swept):
        return [sampled, *why]
    start, end = experiment.curve.iloc[0], experiment.curve.iloc[-1]
    eligible = int(start["eligible_count"])
    sentences = [
        sampled,
        f"Unpatched, A gave the target in {start['base_is_target_rate']:.0%} of the "
        f"{counted(int(start['n_pairs']), 'pair')} measured (A's own rate) and B in "
        f"{start['donor_is_target_rate']:.0%} (B's own rate); {counted(eligible, 'pair')} "
        f"{'was' if eligible == 1 else 'were'} eligible, A's answer not being the target.",
    ]
    if eligible:
        rates = [
            f"{rate_in(row, TO_TARGET_ELIGIBLE)}{_interval(row)} when patched at layer {int(row['layer'])}"
            for row in ([start, end] if len(experiment.curve) > 1 else [start])
        ]
        sentences.append(f"The flip-to-target rate among eligible pairs was {list_of(rates)}.")
    return [
        *sentences,
        *([hand_over(found, experiment.of_compared)] if (found := run.hand_over(experiment)) else []),
        *why,
    ]


def _interval(row: pd.Series) -> str:
    interval = interval_in(row, TO_TARGET_ELIGIBLE)
    return f" ({interval})" if interval else ""


def hand_over(found: dict[str, Any], of: str = "") -> str:
    """The hand-over layer with its interval, as a sentence; `of` names its pairs (`ExperimentResults.of_compared`)."""
    if found.get("layer") is None:
        return f"There is no hand-over layer: {found['reason']}."
    sentence, suffix = f"The hand-over layer is {_layer(found)}{of}", found.get("suffix")
    if suffix and suffix.get("layer") is not None:
        sentence += f"; the rate of the suffix rises above the same middle at layer {_layer(suffix)}"
    return f"{sentence}."


def hand_over_means(run: Run) -> str:
    """The definition of the hand-over layer, where an experiment has one."""
    return next((found["definition"] for e in run.mains if (found := run.hand_over(e))), "")


def _layer(found: dict[str, float | None]) -> str:
    layer, interval = with_interval(found["layer"], found["low"], found["high"])
    remark = interval or (f"no interval: {found['reason']}" if found.get("reason") else BOTH_OPEN)
    return f"{layer} ({remark})"


def _self_patch(run: Run) -> list[str]:
    found = run.documents["self_patch"]
    if not found:
        return []
    return [
        f"Before measuring, patching {counted(len(found['clips']), 'clip')} with themselves left "
        f"{found['prediction_agreement']:.0%} of {found['n_predictions']} answers unchanged (largest |Δlogit| "
        f"{found['max_abs_delta_logit']:.2g}), patching the last layer changed the logits by "
        f"{found['last_layer_max_abs_delta_logit']:.2g}, and replacing the span at the embeddings reproduced B's "
        f"logits to {found['embeddings_max_abs_difference_from_donor']:.2g}."
    ]
