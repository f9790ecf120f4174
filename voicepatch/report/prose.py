"""The sentences of the report, with the numbers of this run.

question(run), what_was_done(run), terms(run), limits(run), simplifications(run)
"""

import pandas as pd

from voicepatch.analysis.acoustics import acoustic_table
from voicepatch.analysis.cells import value_text
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.samples import ENOUGH_SPEAKERS, speakers_note
from voicepatch.analysis.tables import lengths_apart
from voicepatch.analysis.words_and_voice import n_named
from voicepatch.figures.curves import NO_UPPER_BOUND
from voicepatch.figures.headings import selection
from voicepatch.report.experiments import Run
from voicepatch.text import counted, list_of

LIMITS = (
    "Patching shows until which layer B's states can override A's answer. It shows neither when the information leaves "
    "the span nor until which layer A's own span is needed. The experiment need shows the latter, by a knock-out.",
    "It shows that the representation at a layer has a causal effect, not that the information exists only there.",
    "The clips of a pair differ in their sound beside the label: semantic pairs in words and tempo, prosody pairs in "
    "pitch and level. Which kind differs more is a matter of the data; python cli.py pairs --kind KIND --acoustics "
    "measures it.",
    "A flip rate that starts high and decays with depth is what any causal model shows, since replacing the whole span "
    "in an early layer replaces nearly all of the sound. The result is where it decays, and how it compares with the "
    "controls.",
    NO_UPPER_BOUND,
)
OFF_DISTRIBUTION = (
    "A written state can lie outside what the model ever produces. Where an experiment has an alpha, a sweep of it "
    "helps to judge that."
)
RANDOM_WEIGHTS = (
    "The weights are random, so no part of this run shows anything about the trained model. It shows what the method "
    "finds where there is nothing to find."
)
ANSWERED = (
    "The results hold for {kind} pairs that the model answers, not for all: in {passed} of {tried} pairs tried, A and "
    "B, unpatched, each answer with their own label."
)
OF_A_CHANGE = (
    "Where {names} changes A's answer, the changed place has a causal effect on the answer. That does not show what "
    "was represented there."
)
RATES = (
    "The target is B's label, unless an experiment says otherwise. flip_to_target_rate is the share of pairs whose "
    "answer in the changed run is the target, flip_from_base_rate the share whose answer there is not A's unpatched "
    "one. Both are over all pairs; "
    "flip_to_target_rate_eligible is over the eligible pairs, in which A unpatched does not give the target. B's own "
    "rate (donor_is_target_rate) and A's own rate (base_is_target_rate) are the shares of pairs in which B and A, "
    "unpatched, give the target."
)

ABLATION = (
    "A is the clip whose run is changed. There is no donor and no target. flip_from_base_rate is the share of clips "
    "whose answer in the changed run is not the unpatched one."
)


def terms(run: Run) -> str:
    """What A, B and the rates are, in a run of these experiments."""
    changing = [experiment for experiment in run.experiments if experiment.writes]
    if not changing:
        return "No experiment of this run changes anything in the model: each answer is that of an unpatched clip."
    if not any(experiment.has_donor for experiment in changing):
        return ABLATION
    donors = [experiment.name for experiment in changing if run.is_donor_patch(experiment)]
    made = "what is written into A's run is made from B's activations"
    if len(donors) == len(changing):
        who = f"A is the recipient, whose run is changed; B is the donor: {made}."
    elif donors:
        who = f"A is the clip whose run is changed. In {list_of(donors)}, B is the donor: {made}."
    else:
        who = "A is the clip whose run is changed; B is the other clip of the pair."
    return f"{who} {RATES}"


def limits(run: Run) -> list[str]:
    """What the run does not show."""
    changing = [experiment for experiment in run.experiments if experiment.writes]
    donors = [run.is_donor_patch(experiment) for experiment in changing]
    others = [
        experiment.name
        for experiment, is_donor in zip(changing, donors, strict=True)
        if not is_donor and not experiment.settings["must_change_nothing"]
    ]
    lines = [RANDOM_WEIGHTS] if "random_weights" in run.config["model"] else []
    lines += [
        ANSWERED.format(kind=kind, **report["answered"])
        for kind, report in run.documents["construction"].items()
        if "answered" in report
    ]
    lines += LIMITS if any(donors) else []
    lines += [OF_A_CHANGE.format(names=list_of(others, "or"))] if others else []
    lines += [OFF_DISTRIBUTION] if changing else []
    lines += [acoustic] if isinstance(acoustic := run.results.cached(acoustic_table), str) else []
    return [*lines, *run.limits()]


def question(run: Run) -> str:
    """What was asked, in one sentence."""
    model, kinds = run.config["model"]["name"], [main.kind for main in run.mains]
    if not kinds:
        return f"What do the experiments of this run show of the answers of {model}?"
    causes = [{"prosody": "another voice", "semantic": "other words"}[kind] for kind in kinds]
    asked = ", and until which can ".join(causes)
    return f"Until which decoder layer of {model} can {asked} change its answer to a question about a clip?"


def model_of(run: Run) -> str:
    """The model's name, and the base of the adapter where one was merged."""
    model = run.config["model"]
    if "adapter" not in model:
        return model["name"]
    return f"{model['name']}, an adapter (LoRA) merged into {model['adapter']['base']}"


def what_was_done(run: Run) -> str:
    """The model's question, what was written where, and in which pairs.

    Without a main experiment, the list of `what_each_did` follows it.
    """
    data, prompt, task = run.config["data"]["name"], run.config["prompt"]["user"], run.results.task
    comma = "," if "adapter" in run.config["model"] else ""
    asked = f"{model_of(run)}{comma} heard a clip of {data} and was asked: “{prompt}”"
    if task.n_orders > 1:
        orders = "; ".join(f"“{task.options(order)}”" for order in range(task.n_orders))
        asked += f" The options were offered in {task.n_orders} orders, one question each: {orders}."
    if not run.mains:
        return f"{asked} The run has, at {layers_of(run)}:"
    did = list_of(dict.fromkeys(main.what.rstrip(".") for main in run.mains))
    pairs = [
        f"{counted(len(main.pairs), f'{main.kind} pair')} ({differs(run, main.kind)}{_selected(run, main)})"
        for main in run.mains
    ]
    return (
        f"{asked} {did}, at one layer at a time ({layers_of(run)}), in {list_of(pairs)}: where the answer of A, the "
        "recipient, becomes the target, the states of B, the donor, have a causal effect on it at that layer."
    )


def _selected(run: Run, main: ExperimentResults) -> str:
    """Which clips and pairs count, and how many pairs were tried for those that the model answers."""
    tried = run.documents["construction"].get(main.kind, {}).get("answered", {}).get("tried")
    words = selection([main.settings])
    return "".join(f"; {part}" for part in words) + (f", of {tried} tried" if tried else "")


def layers_of(run: Run) -> str:
    """How many layers were patched, as "all 36 layers"."""
    n_layers = run.config["model"]["n_layers"]
    by_layer = [one.settings for one in run.mains or run.experiments if one.settings["by_layer"]]
    counts = sorted({len(settings["layers_to_patch"]) for settings in by_layer}) or [n_layers]
    where = "all" if counts == [n_layers] else f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} of its"
    return f"{where} {n_layers} layers"


def differs(run: Run, kind: str) -> str:
    """What the clips of a pair have in common, and which label is the target."""
    voice, words = (column.replace("_", " ") for column in (run.results.task.voice, run.results.task.words or ""))
    if kind == "prosody":
        return f"same words, another voice; target: B's {voice}"
    return f"another text, same {voice}; target: B's {words}"


def what_each_did(run: Run) -> list[str]:
    """What each experiment did, in a run without a main experiment; else nothing."""
    return [] if run.mains else [what_it_did(run, one) for one in run.others]


def what_it_did(run: Run, experiment: ExperimentResults) -> str:
    """Its name, and in brackets its sentence, what it wrote where, and whether with B's activations."""
    parts = [experiment.what.rstrip("."), *(["its logits are estimates"] if experiment.is_estimate else [])]
    if experiment.records is not None:
        parts.append(f"written: {experiment.site}" if experiment.writes else "nothing is written")
    parts += ["from B's activations"] if run.is_donor_patch(experiment) and not experiment.is_main else []
    return f"{experiment.name} ({'; '.join(parts)})"


def simplifications(run: Run) -> list[str]:
    """Every approximation that was made, with its extent."""
    entries = run.documents["tokens"].get("labels", {})
    several = [f"{label} ({' | '.join(entry['tokens'])})" for label, entry in entries.items() if entry["multi_token"]]
    lines = [f"The answer is restricted to the {len(run.labels)} labels. Other answers of the model are not seen."]
    if several:
        lines.append(
            f"Each label is read from one token. {list_of(several)} {'is' if len(several) == 1 else 'are'} several "
            "tokens, of which the first is read."
        )
    if run.results.task.orders:
        lines.append(
            "Where this page says logit, it is a label's log-probability among the labels, averaged over "
            f"{run.results.task.n_orders} orders of the options. Positions are those in the first order."
        )
    for experiment in run.mains:
        if experiment.records is not None:
            lines.append(_alignment(experiment))
    lines += [line for experiment in run.experiments for line in run.own(experiment, "simplifications")]
    lines += [
        f"{e.name}: its logits are estimates, not those of a patched model." for e in run.experiments if e.is_estimate
    ]
    lines += intervals(run)
    for is_patch, mixed in ((True, "alpha · B"), (False, "alpha · what the experiment writes at alpha 1")):
        some = [one for one in run.experiments if one.doses != [1] and run.is_donor_patch(one) == is_patch]
        doses = [f"{one.name} at alpha {doses_of(one.doses)}" for one in some]
        lines += (
            [f"At alpha below 1 the written value is (1 − alpha) · A + {mixed}: {list_of(doses)}."] if doses else []
        )
    return lines


def intervals(run: Run) -> list[str]:
    """How the 95 % intervals of rates were made, where there are any, and for which speakers they hold."""
    metrics = [experiment.curve for experiment in run.experiments if experiment.records is not None]
    if not any(table["flip_to_target_rate_low"].notna().any() for table in metrics):
        return []
    pairs = [experiment.pairs for experiment in run.experiments]
    n, note = n_named(pd.concat(pairs), "speaker"), speakers_note(*pairs)
    speakers = f" and whole speakers ({n})" if n >= ENOUGH_SPEAKERS else ""
    return [
        f"The bands in figures come from resampling whole texts{speakers}.",
        *([f"{note[0].upper()}{note[1:]}."] if note else []),
    ]


def is_resampled(experiment: ExperimentResults) -> bool:
    return experiment.settings["align"] == "resample_linear"


def _alignment(experiment: ExperimentResults) -> str:
    first = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(first).abs()
    differ = f"In {(apart > 0).sum()} of {counted(len(first), 'pair')} the lengths differ"
    if is_resampled(experiment):
        most = f", by up to {apart.max():.0%} of the longer one" if apart.any() else ""
        return (
            f"{experiment.name}: B's span is interpolated along time to A's length (resample_linear). This is an "
            "approximation: the written value lies between two states of the model, which never produces it itself. "
            f"{differ}{most}."
        )
    longer_a, longer_b = first["len_a"] > first["n_patched"], first["len_b"] > first["n_patched"]
    return (
        f"{experiment.name}: spans are aligned at their start ({experiment.settings['align']}). {differ}: "
        f"{longer_a.sum()} recipients keep their own end, {longer_b.sum()} donors lose theirs."
    )


def doses_of(alphas: list[float]) -> str:
    return list_of([value_text(alpha) for alpha in alphas])
