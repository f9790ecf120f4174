"""The sentences of the report, with this run's numbers in them, and only on what the run holds.

question(run), terms(run), limits(run), simplifications(run), methods(run)
"""

from collections.abc import Iterable

import pandas as pd

from analysis.cells import value_text
from analysis.contrast_kinds import ENOUGH_SPEAKERS
from analysis.curves import NO_UPPER_BOUND
from analysis.lens import is_lens
from analysis.metrics import main_rate
from analysis.report.experiments import Experiment, Run
from analysis.report.variants import LENS_LIMIT, alignment_in_time, lens_result
from analysis.rounding import BOTH_OPEN, with_interval
from analysis.tables import lengths_apart
from analysis.words_and_voice import n_named

LIMITS = (
    "Patching shows until which layer B's states can override A's answer. It shows neither when the information leaves "
    "the span nor until which layer A's own span is needed; the latter takes a knock-out of the attention to the span.",
    "It shows that the representation at a layer has a causal effect, not that the information exists only there.",
    "Semantic pairs differ in their sound as well, even with the same prosody label (other words, tempo, timbre): the "
    "semantic curve is confounded by acoustics, the prosody curve much less.",
    "A flip rate that starts high and decays with depth is what any causal model shows, since replacing the whole span "
    "in an early layer replaces nearly all of the sound. The result is where it decays, and how it compares with the "
    "controls.",
    NO_UPPER_BOUND,
)
OFF_DISTRIBUTION = (
    "A state that was written can lie outside what the model ever produces; where an experiment takes an alpha, a "
    "sweep of it helps to judge that."
)
OF_A_CHANGE = (
    "Where {names} changes A's answer, the place that it changes has a causal effect on the answer. That does not say "
    "what was represented there."
)
RATES = (
    "The target is B's label. flip_to_target_rate is the share of pairs whose answer in the changed run is the target, "
    "flip_from_base_rate the share whose answer there is not A's unpatched one. Both are over all pairs; "
    "flip_to_target_rate_eligible is over the eligible pairs, in which A unpatched does not give the target. B's own "
    "rate (donor_is_target_rate) and A's own rate (base_is_target_rate) are the shares of pairs in which B and A, "
    "unpatched, give the target."
)
DIFFERS = {
    "prosody": "the same words in another voice; the target is B's prosody label",
    "semantic": "another text in a voice with the same prosody label; the target is B's semantic label",
}


def terms(run: Run) -> str:
    """What A, B and the rates are, in a run of these experiments."""
    changing = [experiment for experiment in run.experiments if experiment.writes]
    if not changing:
        return "No experiment of this run changes anything in the model: each answer is that of a clip as it is."
    donors = [experiment.name for experiment in changing if experiment.is_donor_patch]
    made = "what is written into A's run is made from B's activations"
    if len(donors) == len(changing):
        who = f"A is the recipient, whose run is changed; B is the donor: {made}."
    elif donors:
        who = f"A is the clip whose run is changed. In {_list(donors)}, B is the donor: {made}."
    else:
        who = "A is the clip whose run is changed; B is the other clip of the pair."
    return f"{who} {RATES}"


def limits(run: Run) -> list[str]:
    """What the run does not show."""
    changing = [experiment for experiment in run.experiments if experiment.writes]
    lines = [*LIMITS] if any(experiment.is_donor_patch for experiment in changing) else []
    others = [experiment.name for experiment in changing if not experiment.is_donor_patch]
    lines += [OF_A_CHANGE.format(names=_list(others, "or"))] if others else []
    lines += [OFF_DISTRIBUTION] if changing else []
    return [*lines, *([LENS_LIMIT] if any(is_lens(experiment.settings) for experiment in run.experiments) else [])]


def question(run: Run) -> str:
    """What was asked, in one paragraph."""
    model, prompt = run.config["model"], run.config["prompt"]["user"]
    counts = sorted({len(experiment.settings["layers_to_patch"]) for experiment in run.mains or run.experiments})
    where = "all" if counts == [model["n_layers"]] else f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} of its"
    layers, data = f"{where} {model['n_layers']} layers", run.config["data"]["name"]
    if not run.mains:
        return (
            f"{model['name']} hears a clip of {data} and is asked “{prompt}” The run has no main experiment. At "
            f"{layers} it holds: {'; '.join(map(_what_it_did, run.others))}."
        )
    asked = [
        f"{len(main.pairs)} {_kind(main)} pair{'s' if len(main.pairs) > 1 else ''} ({DIFFERS[_kind(main)]})"
        for main in run.mains
    ]
    sentences = [
        f"{model['name']} hears clip A (the recipient) and is asked “{prompt}” B's (the donor's) residual stream over "
        "the audio span is written into A's run at one decoder layer: does A's answer become the target, B's label?",
        "Where it does, what stands in the span at that layer has a causal effect on the answer: this is an "
        "intervention, do(activation = B), not a correlation.",
        f"It was asked at {layers}, of {_list(asked)} from {data}.",
    ]
    if run.others:
        sentences.append(f"Controls and variants beside it: {_list([experiment.name for experiment in run.others])}.")
    return " ".join(sentences)


def _what_it_did(experiment: Experiment) -> str:
    """Its name, and in brackets its docstring, what it wrote where, and whether with B's activations."""
    parts = [experiment.what.rstrip(".")]
    if experiment.records is not None:
        parts.append(f"written: {experiment.site}" if experiment.writes else "nothing is written")
    parts += ["from B's activations"] if experiment.is_donor_patch and not experiment.is_main else []
    return f"{experiment.name} ({'; '.join(parts)})"


def simplifications(run: Run) -> list[str]:
    """Every approximation that was made on the way, with its extent."""
    entries = run.tokens.get("labels", {})
    several = [f"{label} ({' | '.join(entry['tokens'])})" for label, entry in entries.items() if entry["multi_token"]]
    lines = ["The answer is restricted to the five labels: whatever else the model would rather say is not seen."]
    if several:
        lines.append(
            "The answer is read from one token a label. Of several tokens, the first of which stands for the label, "
            f"{'is' if len(several) == 1 else 'are'} {_list(several)}."
        )
    for experiment in run.mains:
        if experiment.records is not None:
            lines += [_alignment(experiment), _mass(experiment)]
    lines += [line for experiment in run.others for line in alignment_in_time(experiment)]
    lines += _intervals(run)
    for dosed, mixed in ((True, "alpha · B"), (False, "alpha · what the experiment writes at alpha 1")):
        doses = [
            f"{e.name} at alpha {_doses(e.doses)}"
            for e in run.experiments
            if e.doses != [1] and e.is_donor_patch == dosed
        ]
        lines += [f"At alpha below 1 the written value is (1 − alpha) · A + {mixed}: {_list(doses)}."] if doses else []
    return lines


def _intervals(run: Run) -> list[str]:
    """What the 95 % intervals are made of, where there are any."""
    metrics = [experiment.metrics for experiment in run.experiments if experiment.metrics is not None]
    if not any(table["flip_to_target_rate_low"].notna().any() for table in metrics):
        return []
    line = "95 % intervals come from resampling whole texts"
    n = n_named(pd.concat([experiment.pairs for experiment in run.experiments]), "speaker")
    if n:
        line += f"; speakers are not resampled, so the intervals hold for {'this' if n == 1 else 'these'} {n} "
        line += "speaker" if n == 1 else "speakers"
    if n >= ENOUGH_SPEAKERS and len({_kind(main) for main in run.mains}) > 1:
        line += " (in the contrast of the two kinds of pairs they are resampled too)"
    return [f"{line}."]


def _is_resampled(experiment: Experiment) -> bool:
    return experiment.settings["align"] == "resample_linear"


def _alignment(experiment: Experiment) -> str:
    first = experiment.records.drop_duplicates("pair_id")
    if _is_resampled(experiment):
        apart = lengths_apart(first).abs()
        differs = f", by up to {apart.max():.0%} of the longer one" if apart.any() else ""
        return (
            f"{experiment.name}: B's span is interpolated along time to A's length (resample_linear), an "
            "approximation: what is written lies between two states of the model and is none that it makes itself. In "
            f"{(apart > 0).sum()} of {len(first)} pairs the lengths differ{differs}."
        )
    longer_a, longer_b = first["len_a"] > first["n_patched"], first["len_b"] > first["n_patched"]
    return (
        f"{experiment.name}: spans are aligned at their start ({experiment.settings['align']}). In "
        f"{(longer_a | longer_b).sum()} of {len(first)} pairs the lengths differ: {longer_a.sum()} recipients keep a "
        f"tail of their own, {longer_b.sum()} donors lose their end."
    )


def _mass(experiment: Experiment) -> str:
    base, patched = experiment.records["label_mass_base"], experiment.records["label_mass_patch"]
    return (
        f"{experiment.name}: of the model's probability over all tokens the five labels hold {base.mean():.1%} on "
        f"average before patching and {patched.mean():.1%} after it ({min(base.min(), patched.min()):.1%} at least)."
    )


def methods(run: Run, headline: list[str]) -> str:
    """A paragraph for a paper, from the configuration, the construction report and the metrics of this run.

    `headline` is that of `analysis.words_and_voice`.
    """
    model, data = run.config["model"], run.config["data"]
    settings = [experiment.settings for experiment in run.experiments]
    several = [label for label, entry in run.tokens.get("labels", {}).items() if entry["multi_token"]]
    sentences = [
        f"We {'used activation patching in' if run.mains else 'studied'} {model['name']} ({model['n_layers']} decoder "
        f"layers, hidden size {model['hidden_size']}, weights sha256 {model['sha256'][:12]}) on {data['name']} "
        f"({data['n_clips']} clips, sha256 {data['sha256'][:12]}).",
        f"Each clip was followed by the prompt “{run.config['prompt']['user']}”",
        f"The answer was the label with the largest logit ({', '.join(run.config['labels']['order'])}) at the last "
        "position of the prompt, each label read from its first token"
        f"{f' ({_list(several)} consist of several)' if several else ''}; nothing was generated.",
        *_patching(run),
        f"{_engines(run)}.",
    ]
    sentences.append(hand_over_means(run))
    for experiment in run.mains:
        sentences += [_sampling(run, experiment), *_result(experiment), *_of_how_many(experiment)]
    sentences += [*headline[:1], *_intervals(run)]
    measured = [experiment for experiment in run.others if experiment.records is not None]
    sentences += [lens_result(experiment) for experiment in measured if is_lens(experiment.settings)]
    sentences += [
        f"{_what_it_did(experiment)}: {_outcome(experiment)}."
        for experiment in measured
        if not is_lens(experiment.settings)
    ]
    sentences += _checks(run)
    versions = _each(", ".join(f"{name} {version}" for name, version in of["versions"].items()) for of in settings)
    return " ".join(filter(None, [*sentences, f"Software: {versions}."]))


def _engines(run: Run) -> str:
    """How the forward passes were run, with the experiments' names where they differ."""
    how: dict[str, list[str]] = {}
    for experiment in run.experiments:
        of = experiment.settings
        how.setdefault(f"{experiment.engine}, {of['dtype']} on {of['device']}", []).append(experiment.name)
    named = [f"{way} ({_list(names)})" for way, names in how.items()] if len(how) > 1 else list(how)
    return f"Forward passes: {'; '.join(named)}"


def _patching(run: Run) -> list[str]:
    if not run.mains:
        return []
    alphas = sorted({dose for experiment in run.mains for dose in experiment.doses})
    sites = list(dict.fromkeys(experiment.site for experiment in run.mains if experiment.site))
    cut = "A's first min(len A, len B) audio positions"
    whole = "A's audio positions, B's values interpolated linearly along time to their number,"
    where = {whole if _is_resampled(experiment) else cut: _kind(experiment) for experiment in run.mains}
    places = list(where) if len(where) == 1 else [f"{place} ({kind} pairs)" for place, kind in where.items()]
    return [
        f"For a recipient A and a donor B, the {_list(sites) or 'residual stream'} of decoder layer l at "
        f"{_list(places)} was set to (1 − α)·A + α·B with α = {_doses(alphas)}."
    ]


def _sampling(run: Run, experiment: Experiment) -> str:
    settings, kind = experiment.settings, _kind(experiment)
    of = f" of {run.construction[kind]['pairs_possible']} possible" if kind in run.construction else ""
    speaker = "A and B by the same speaker where the data name speakers" if settings["same_speaker"] else "any speakers"
    direction = "both directions run" if settings["both_directions"] else "direction drawn"
    return (
        f"{kind.capitalize()} pairs: {len(experiment.pairs)}{of} were sampled (seed {settings['pair_sampling_seed']}, "
        f"{speaker}, {direction}), {DIFFERS[kind]}."
        + (f" Of these, {len(experiment.lost)} gave no record and are left out." if experiment.lost else "")
    )


def _result(experiment: Experiment) -> list[str]:
    if experiment.records is None or not experiment.is_one_curve:
        return []
    start, end = experiment.metrics.iloc[0], experiment.metrics.iloc[-1]
    eligible = int(start["eligible_count"])
    sentences = [
        f"Unpatched, A gave the target in {start['base_is_target_rate']:.0%} of the {int(start['n_pairs'])} pairs "
        f"measured (A's own rate) and B in {start['donor_is_target_rate']:.0%} (B's own rate); {eligible} pairs were "
        "eligible, A's answer not being the target."
    ]
    if eligible:
        rates = [
            f"{row['flip_to_target_rate_eligible']:.0%}{_interval(row)} when patched at layer {int(row['layer'])}"
            for row in ([start, end] if len(experiment.metrics) > 1 else [start])
        ]
        sentences.append(f"The flip-to-target rate among eligible pairs was {_list(rates)}.")
    return [*sentences, hand_over(experiment)] if experiment.hand_over else sentences


def _of_how_many(experiment: Experiment) -> list[str]:
    """Of an experiment without intervals, why there are none."""
    return [f"{line[0].upper()}{line[1:]}." for line in experiment.no_interval]


def _interval(row: pd.Series) -> str:
    low, high = (row.get(f"flip_to_target_rate_eligible_{side}") for side in ("low", "high"))
    return f" (95 % interval {low:.0%} to {high:.0%})" if pd.notna(low) else ""


def hand_over(experiment: Experiment) -> str:
    """The hand-over layer with its interval, as a sentence."""
    found = experiment.hand_over
    if found.get("layer") is None:
        return f"There is no hand-over layer: {found['reason']}."
    sentence = f"The hand-over layer is {_layer(found)}"
    suffix = found.get("suffix")
    if suffix and suffix.get("layer") is not None:
        sentence += f"; the rate of the suffix rises above the same middle at layer {_layer(suffix)}"
    return f"{sentence}."


def hand_over_means(run: Run) -> str:
    """The definition of the hand-over layer, where an experiment has one."""
    return next((e.hand_over["definition"] for e in run.experiments if e.hand_over), "")


def _layer(found: dict[str, float | None]) -> str:
    layer, interval = with_interval(found["layer"], found["low"], found["high"])
    remark = interval or (f"no interval: {found['reason']}" if found.get("reason") else BOTH_OPEN)
    return f"{layer} ({remark})"


def _outcome(experiment: Experiment) -> str:
    """How often A's answer became the target among eligible pairs, and how often it changed at all."""
    metrics = experiment.metrics
    top = metrics.loc[metrics["flip_from_base_rate"].idxmax()]
    rate, of = top["flip_from_base_rate"], f"of {int(top['n_pairs'])} pairs"
    changed = f"A's answer changed in {f'at most {rate:.0%} {of} ({experiment.cell(top)})' if rate else f'none {of}'}"
    eligible = metrics["flip_to_target_rate_eligible"]
    if main_rate(experiment.settings["intervention"]) == "flip_from_base_rate":
        return changed
    if eligible.isna().all():
        return f"no pair was eligible; {changed}"
    top = metrics.loc[eligible.idxmax()]
    rate, of = top["flip_to_target_rate_eligible"], f"of the {int(top['eligible_count'])} eligible pairs"
    if rate:
        return f"{of} at most {rate:.0%} flipped to the target ({experiment.cell(top)}); {changed}"
    return (
        f"none {of} flipped to the target at any layer, and what its flip-to-target rate counts are answers that were "
        f"the target before (A's own rate, {top['base_is_target_rate']:.0%}); {changed}"
    )


def _checks(run: Run) -> list[str]:
    silent = run.silent
    if not silent:
        return []
    return [
        f"Before measuring, patching {len(silent['clips'])} clips with themselves left "
        f"{silent['prediction_agreement']:.0%} of {silent['n_predictions']} answers unchanged (largest |Δlogit| "
        f"{silent['max_abs_delta_logit']:.2g}), patching the last layer changed the logits by "
        f"{silent['last_layer_max_abs_delta_logit']:.2g}, and replacing the span at the embeddings reproduced B's "
        f"logits to {silent['embeddings_max_abs_difference_from_donor']:.2g}."
    ]


def _each(values: Iterable[str]) -> str:
    """The different ones among the experiments' values."""
    return "; ".join(dict.fromkeys(values))


def _kind(experiment: Experiment) -> str:
    return experiment.settings["kind"]


def _doses(alphas: list[float]) -> str:
    return _list([value_text(alpha) for alpha in alphas])


def _list(items: list[str], last: str = "and") -> str:
    return f"{', '.join(items[:-1])} {last} {items[-1]}" if len(items) > 1 else "".join(items)
