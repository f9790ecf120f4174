"""A paragraph for the methods section of a paper, with the numbers of this run.

methods(run)     # at most 250 words
"""

from collections.abc import Iterator

from voicepatch.analysis.contrasts import ALL, Contrast
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.need import need_of
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.words_and_voice import contrast_of, headline
from voicepatch.figures.headings import selection
from voicepatch.report.details import outcome
from voicepatch.report.experiments import Run
from voicepatch.report.prose import counted, differs, doses_of, is_resampled, layers_of, list_of

MOST_WORDS = 250
LONG = 45  # words of a question that is not quoted
AREAS = (
    "Layers are compared by the areas under the curves, each a share of its first value above its floor; intervals and "
    "p come from leaving out each {unit} with all its pairs (Student's t)."
)
HAND_OVER = (
    "The layer is where the share of answers that are the target falls below the middle between its first value and "
    "that before patching; its interval has every layer at which they may be equal, with {unit}s as clusters."
)


def methods(run: Run) -> str:
    """The paragraph, in at most `MOST_WORDS` words.

    The other experiments are described, each in its own words and with its outcome, as far as there is room.
    """
    # A sentence on what is open, without a number, is no result.
    text, found = "", [line for line in headline(run.results, midpoints=False) if " is open: " not in line]
    for others in _others(run):
        text = " ".join([*_set_up(run), *_pairs(run), *found, *_inference(run), *others, _computed(run)])
        if len(text.split()) <= MOST_WORDS:
            break
    return text


def _set_up(run: Run) -> list[str]:
    model, data, prompt = run.config["model"], run.config["data"], run.config["prompt"]["user"]
    how = "used activation patching in" if run.mains else "studied"
    asked = f"the question of the task {run.results.task.name}" if len(prompt.split()) > LONG else f"“{prompt}”"
    read, n_orders = "whose first token had the largest logit", run.results.task.n_orders
    if n_orders > 1:
        read = f"with the largest log-probability among the labels, averaged over {n_orders} orders of the options"
    return [
        f"We {how} {model['name']} ({model['n_layers']} decoder layers) on {data['name']} ({data['n_clips']} clips).",
        f"The model's answer to {asked} was the label {read}.",
    ]


def _pairs(run: Run) -> list[str]:
    """What the main experiments wrote where, and in which pairs; nothing without one."""
    if not run.mains:
        return []
    first = run.mains[0]
    did = list_of(dict.fromkeys(main.what.rstrip(".") for main in run.mains))
    aligned = "B's span interpolated to A's length" if is_resampled(first) else "unequal spans cut to the shorter"
    alphas = sorted({dose for main in run.mains for dose in main.doses})
    dose = "" if alphas == [1] else f"; B's share of the written value was {doses_of(alphas)}"
    drawn = [f"{counted(main.n_measured, f'{main.kind} pair')} ({differs(run, main.kind)})" for main in run.mains]
    speaker = ", one speaker a pair" if first.settings["same_speaker"] else ""
    selected = "".join(f", {words}" for words in selection([first.settings]))
    return [
        f"{did}, one layer at a time ({layers_of(run)}; {aligned}{dose}).",
        f"We drew {list_of(drawn)} of a recipient A and a donor B (seed {first.seed}{speaker}{selected}).",
    ]


def _inference(run: Run) -> list[str]:
    """How the intervals and p of the headline were made."""
    found, need = run.results.cached(contrast_of), run.results.cached(need_of)
    has_areas = isinstance(found, Contrast) and found.statistics[ALL]["difference"] is not None
    has_areas |= bool(need and need.statistics["difference"])
    has_layer = not isinstance(found, Contrast) and any(run.hand_over(main).get("layer") for main in run.mains)
    unit = "text"
    if run.mains and sample_of(*(main.pairs for main in run.mains)).n_speakers:
        unit = "text and speaker"
    return [*([HAND_OVER.format(unit=unit)] if has_layer else []), *([AREAS.format(unit=unit)] if has_areas else [])]


def _others(run: Run) -> Iterator[list[str]]:
    """Sentences on the other experiments, from the longest to none."""
    measured = [one for one in run.others if one.records is not None]
    beside = [one for one in measured if one.settings["beside_main"]]  # the headline has their numbers
    further = [one for one in measured if one not in beside]
    explained = [f"In a further experiment ({one.name}), {_did(one)[0].lower()}{_did(one)[1:]}." for one in beside]
    in_full = [
        f"{one.name}: {_did(one)}" + ("." if one.settings["reads_only"] else f"; {outcome(one)}.") for one in further
    ]
    yield [*explained, *in_full]
    yield [*explained, *(f"{one.name}: {_did(one)}." for one in further)]
    yield [*explained, f"Further experiments: {list_of(map(_name, further))}."]
    yield [f"Further experiments: {list_of(map(_name, measured))}."]
    yield explained
    yield []


def _did(experiment: ExperimentResults) -> str:
    what = experiment.what.rstrip(".")
    return f"{what} (its logits are estimates)" if experiment.is_estimate else what


def _name(experiment: ExperimentResults) -> str:
    return f"{experiment.name} (estimates)" if experiment.is_estimate else experiment.name


def _computed(run: Run) -> str:
    """Number type, device and versions; those of the libraries that compute the results."""
    settings = [one.settings for one in run.experiments]
    where = list_of(dict.fromkeys(f"{of['dtype']} on {of['device']}" for of in settings))
    named = ("voicepatch", "torch", "transformers", "nnsight")
    versions = dict.fromkeys(
        ", ".join(f"{name} {of['versions'][name]}" for name in named if name in of["versions"]) for of in settings
    )
    return f"Software: {'; '.join(versions)}; {where}."
