"""Which figures an experiment gets.

    charts_of(results, "prosody")               # {"flip_rate_curve_prosody": alt.Chart, …}

The figures are declared in `figures.curves` and `figures.maps`, and those of one experiment alone in its own module.
"""

import altair as alt

from voicepatch.analysis.cells import DOSE, at_highest_dose, combinations, is_one_curve, value_name
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.layer_metrics import layer_metrics
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.samples import speakers_note
from voicepatch.analysis.sites import site_name
from voicepatch.analysis.tables import unpatched
from voicepatch.analysis.words_and_voice import overriding
from voicepatch.figures import breakdown, contrasts, curves, maps, one_row
from voicepatch.figures.cell_map import MOST_LINES, cell_map
from voicepatch.figures.controls import control_curves
from voicepatch.figures.headings import congruence_note, count_of_pairs, dose_note, heading, model_and_data
from voicepatch.figures.own import own, replaces_common
from voicepatch.figures.wording import TARGET, axis_title

BOTH = "Prosody and semantic pairs"
Charts = dict[str, alt.TopLevelMixin]


def charts_of(results: Results, name: str) -> Charts:
    """File stem → figure, for one experiment of a run and for what it shows together with the others of the run."""
    return results.cached(_charts_of, name)


def _charts_of(results: Results, name: str) -> Charts:
    experiment = results.experiment(name)
    charts: Charts = {} if replaces_common(results, experiment) else _common(results, experiment)
    return charts | own(results, experiment, "charts", results, experiment)


def _common(results: Results, experiment: ExperimentResults) -> Charts:
    title, subtitle = heading(results, experiment)
    if not experiment.settings["by_layer"]:
        charts = _of_one_row(experiment, title, subtitle)
    elif experiment.swept:
        charts = _of_sweep(results, experiment, title, subtitle)
    else:
        charts = _of_one_curve(experiment, title, subtitle)
    if experiment.is_curve and experiment.settings["by_layer"] and flip_columns(experiment):
        charts |= breakdown.charts(results, experiment, title, subtitle, target_of(experiment))
    if experiment.is_main and is_one_curve(experiment.swept):
        charts |= _of_main(results, experiment, title, subtitle)
    charts |= _with_controls(results, experiment.kind)
    return charts | (_of_both_kinds(results) if experiment.is_main else {})


def target_of(experiment: ExperimentResults) -> str:
    """What the target is: B's label, or only the target, as for a random donor; A's own where B is the same clip."""
    if experiment.has_donor and not experiment.pairs_of_clips:
        return "the voice's label" if experiment.kind == "prosody" else "the words' label"
    donors_label = experiment.pairs[f"{experiment.kind}_label_b"]
    return "B's label" if experiment.has_donor and (donors_label == experiment.pairs["target"]).all() else TARGET


def metric_columns(experiment: ExperimentResults) -> list[str]:
    """The means that are drawn by layer: those of the program, and every metric from outside."""
    outside = [metric.column for metric in experiment.further_metrics]
    has_recovery = experiment.is_main and not experiment.swept and experiment.metrics["recovery_n"].max() > 0
    if not experiment.has_donor:
        return outside
    return [curves.DELTA_LOGIT, *([curves.RECOVERY] if has_recovery else []), *outside]


def _of_one_row(experiment: ExperimentResults, title: str, subtitle: list[str]) -> Charts:
    metrics, charts = experiment.curve, {}
    names = combinations(metrics, [column for column in experiment.swept if column != DOSE])
    for column in [*flip_columns(experiment), *metric_columns(experiment)]:
        stem = "flip_rate_curve" if column == experiment.rate else curves.metric_declaration(column).stem
        charts[f"{stem}_{experiment.name}"] = one_row.by_combination(metrics, names, column, title, subtitle)
    return charts


def flip_columns(experiment: ExperimentResults) -> list[str]:
    """The rate whose figure an experiment has; none for estimates, whose answers are not the model's."""
    return [] if experiment.is_estimate else [experiment.rate]


def _of_one_curve(experiment: ExperimentResults, title: str, subtitle: list[str]) -> Charts:
    metrics, name, target = experiment.metrics, experiment.name, target_of(experiment)
    charts: Charts = {}
    unit = f"{experiment.unit}s"
    if experiment.rate == curves.FROM_BASE:  # then flips to the target are none of its effects
        charts[f"flip_rate_curve_{name}"] = curves.changed_answers_curve(metrics, title, subtitle, unit)
    elif flip_columns(experiment):
        charts[f"flip_rate_curve_{name}"] = curves.flip_rate_curve(metrics, title, subtitle, target, unit)
    for column in metric_columns(experiment):
        stem = curves.metric_declaration(column).stem
        charts[f"{stem}_{name}"] = curves.metric_curve(metrics, column, title, subtitle, target)
    return charts


def _of_sweep(results: Results, experiment: ExperimentResults, title: str, subtitle: list[str]) -> Charts:
    metrics, swept, name = experiment.metrics, experiment.swept, experiment.name
    rate, target = experiment.rate, target_of(experiment)
    few, tested = combinations(metrics, swept).nunique() <= MOST_LINES, results.cached(cell_map, name)
    charts: Charts = {}
    for column in [*flip_columns(experiment), *metric_columns(experiment)]:
        stem = "flip_rate_curve" if column == rate else curves.metric_declaration(column).stem
        if few:
            charts[f"{stem}_{name}"] = curves.swept_curves(metrics, swept, column, title, subtitle, target)
            continue
        caption = "Flip rates by patched layer" if column == rate else curves.metric_declaration(column).caption
        table, reach, notes = metrics, 0.0, subtitle
        if tested and column == tested.column:
            table, reach, notes = tested.mark(metrics), tested.scale, [*notes, tested.note]
        charts[f"{stem}_{name}"] = maps.swept_heat_map(
            table, swept, column, title, notes, caption, reach, axis_title(column, target)
        )
    if swept == [DOSE]:
        notes = [*subtitle, f"written: {site_name(metrics)}"]
        charts[f"dose_response_{name}"] = curves.dose_response(metrics, rate, title, notes, target)
    return charts


def _of_main(results: Results, experiment: ExperimentResults, title: str, subtitle: list[str]) -> Charts:
    name, pairs, labels = experiment.name, experiment.pairs, results.task.labels
    records, written = at_highest_dose(experiment.records), f"written: {site_name(experiment.metrics)}"
    labels_a = pairs.set_index("pair_id")[f"{experiment.kind}_label_a"]
    eligible = records[records["eligible"]]  # the others count A's own rate
    clips = unpatched(records, pairs)
    factors = [f"{kind}_label" for kind in reversed(KINDS) if clips[f"{kind}_label"].notna().any()]
    answers = f"Unpatched answers of the {len(clips)} clips of the {name} pairs"
    charts: Charts = {f"pair_heat_map_{name}": maps.pair_heat_map(records, title, subtitle)}
    if len(eligible):
        notes = [*subtitle, f"{written}; eligible pairs alone"]
        charts[f"label_matrix_{name}"] = maps.label_matrices(eligible, labels_a, labels, title, notes)
    model = [model_and_data(results.config)]
    return charts | {f"unpatched_confusion_{name}": maps.confusion(clips, factors, labels, answers, model)}


def _with_controls(results: Results, kind: str) -> Charts:
    """The curves of the main experiment and of the controls that ran with the same settings; none without both."""
    main, (controls, _) = results.main(kind), results.controls(kind)
    if main is None or not controls or main.side.records.empty:
        return {}
    drawn = {}
    for control in sorted(controls, key=lambda control: control.name):
        side = results.beside_main(control)
        curve = control.curve if side.records is control.records else layer_metrics(at_highest_dose(side.records))
        panel = f"{control.name.removesuffix(f'-{kind}')}, {count_of_pairs(curve)}"
        drawn[panel] = curve, results.rates_of(control)
    title = f"{kind.capitalize()} pairs: the main experiment and its controls"
    notes = [
        model_and_data(results.config),
        *dose_note(main),
        *congruence_note(main),
        *filter(None, [speakers_note(main.pairs)]),
    ]
    return {f"controls_{kind}": control_curves(drawn, main.compared_curve, title, notes)}


def _of_both_kinds(results: Results) -> Charts:
    mains = {kind: main for kind in KINDS if (main := results.main(kind))}
    if len(mains) < len(KINDS) or any(main.side.records.empty for main in mains.values()):
        return {}
    doses = {kind: main.curve[DOSE].iloc[0] for kind, main in mains.items()}
    notes = [*overriding(results), model_and_data(results.config)]
    if set(doses.values()) != {1}:
        notes.append(", ".join(f"{kind} pairs at {value_name(DOSE, dose)}" for kind, dose in doses.items()))
    of_pairs = [note for main in mains.values() for note in congruence_note(main)]
    of_pairs += filter(None, [speakers_note(*(main.pairs for main in mains.values()))])
    notes += of_pairs
    tables = {kind: main.compared_curve for kind, main in mains.items()}
    both = curves.kind_curves(tables, f"{BOTH}: how often the answer becomes B's label", notes)
    return {"prosody_and_semantic": both} | contrasts.charts(results, [model_and_data(results.config), *of_pairs])
