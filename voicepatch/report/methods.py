"""A paragraph for the methods section of a paper, with the numbers of this run.

methods(run)     # at most 250 words
"""

import re
from collections.abc import Iterator

from voicepatch.analysis.cells import ranges
from voicepatch.analysis.contrasts import ALL, Contrast
from voicepatch.analysis.experiment_results import ExperimentResults, donor_question
from voicepatch.analysis.need import need_of
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.words_and_voice import NOT_SHOWN, contrast_of, headline
from voicepatch.figures.captions import sentence
from voicepatch.figures.headings import selection
from voicepatch.report.answer import outcome
from voicepatch.report.experiments import VARIES, Run
from voicepatch.report.prose import differs, doses_of, is_resampled, layers_of, model_of
from voicepatch.text import counted, list_of

MOST_WORDS = 250
# Verbs of the headline and of the experiments' descriptions, in the tense of a methods section.
PAST = {
    "adds": "added",
    "agree": "agreed",
    "are": "were",
    "cannot": "could not",
    "counts": "counted",
    "differ": "differed",
    "do": "did",
    "does": "did",
    "follow": "followed",
    "includes": "included",
    "leaves": "left",
    "is": "was",
    "may": "could",
    "need": "needed",
    "override": "overrode",
    "overrides": "overrode",
    "replaces": "replaced",
    "stays": "stayed",
    "stop": "stopped",
    "stops": "stopped",
}
LONG, LONG_IN_SHORT = 45, 10  # words of a question that is not quoted; the second where there is little room
AREAS = "Intervals and p of areas came from leaving out each {unit} with all its pairs (Student's t)."
IN_SHORT = (
    "whose clips the unpatched model answers with their own labels",
    "that the unpatched model answered correctly",
)
SHORTENED = r" Among the eligible pairs .*|, by the areas under the two curves"
HAND_OVER = (
    "The layer was where the share of answers that were the target fell below the middle between its first value and "
    "that before patching; its interval had every layer at which they could be equal, with {unit}s as clusters."
)


def methods(run: Run) -> str:
    """The paragraph, in at most `MOST_WORDS` words.

    What the headline is about is described in each version. The other experiments are described, each in its own words
    and with its outcome, as far as there is room. Without a headline they are the result.
    """
    text, did, computed = "", [*_pairs(run), *_beside(run)], _computed(run)
    for cut, others in _versions(run):
        first, found = _set_up(run, LONG_IN_SHORT if cut > 1 else LONG), _found(run, cut > 0)
        text = " ".join([*first, *did, *found, *_inference(run, cut > 0), *others, *([] if cut > 2 else [computed])])
        if len(text.split()) <= MOST_WORDS:
            break
    return text


def _found(run: Run, is_short: bool) -> list[str]:
    """The headline in the past, without sentences that hold no number; texts and speakers are named once.

    In short, what the first sentence says of areas and texts holds for the second as well.
    """
    lines: list[str] = []
    for line in headline(run.results):
        if not line.startswith(NOT_SHOWN):
            of = re.search(r", in (this|these) [^.:,]*", line)
            if of and lines and (is_short or any(of[0] in before for before in lines)):
                line = line.replace(of[0], "")
            lines.append(re.sub(SHORTENED, "", line) if is_short else line)
    return list(map(in_past, lines))


def in_past(text: str) -> str:
    """Text with the verbs of `PAST` in the past."""
    text = text.replace(" answers the ", " answered the ")  # elsewhere the word is a noun
    return re.sub(r"(?<![\w-])[a-z]+(?![\w-])", lambda word: PAST.get(word.group(), word.group()), text)


def _set_up(run: Run, most_words: int) -> list[str]:
    model, data, prompt = run.config["model"], run.config["data"], run.config["prompt"]["user"]
    how = "used activation patching in" if run.mains else "studied"
    asked = f"the question of the task {run.results.task.name}" if len(prompt.split()) > most_words else f"“{prompt}”"
    read, n_orders = "whose first token had the largest logit", run.results.task.n_orders
    if n_orders > 1:
        read = f"with the largest log-probability among the labels, averaged over {n_orders} orders of the options"
    return [
        f"We {how} {model_of(run)} ({model['n_layers']} decoder layers) on {data['name']} ({data['n_clips']} clips).",
        f"The model's answer to {asked} was the label {read}.",
    ]


def _pairs(run: Run) -> list[str]:
    """What the main experiments wrote where, and in which pairs; without one, which clips or pairs were drawn."""
    first, *_ = [*run.mains, *run.experiments]
    selected = "".join(f", {words}" for words in selection([first.settings])).replace(*IN_SHORT)
    if not run.mains:
        kinds = dict.fromkeys(f"{one.kind} pairs ({VARIES[one.kind]})" for one in run.experiments)
        at_random = f"at random (seed {first.seed}{selected})"
        if any(one.pairs_of_clips and run.is_donor_patch(one) for one in run.experiments):
            return [f"We drew {list_of(kinds)} of a recipient A and a donor B {at_random}."]
        return [f"The clips, each called A, were those of {list_of(kinds)}, drawn {at_random}."]
    did = list_of(dict.fromkeys(in_past(main.what.rstrip(".")) for main in run.mains))
    aligned = "B's span interpolated to A's length" if is_resampled(first) else "unequal spans cut to the shorter"
    alphas = sorted({dose for main in run.mains for dose in main.doses})
    dose = "" if alphas == [1] else f"; B's share of the written value was {doses_of(alphas)}"
    drawn = [
        f"{counted(main.n_measured, f'{main.kind} pair')} ({differs(run, main.kind)}{_tried(run, main.kind)})"
        for main in run.mains
    ]
    speaker = ", one speaker a pair" if first.settings["same_speaker"] else ""
    return [
        f"{did}, one layer at a time ({layers_of(run)}; {aligned}{dose}).",
        f"We drew {list_of(drawn)} of a recipient A and a donor B (seed {first.seed}{speaker}{selected}).",
        *(in_past(sentence(note.partition(", so ")[0])) for main in run.mains if (note := main.congruence_note)),
    ]


def _tried(run: Run, kind: str) -> str:
    """How many pairs were tried, where the model's answers selected them."""
    tried = run.documents["construction"].get(kind, {}).get("answered")
    return f"; of {tried['tried']} tried" if tried else ""


def _beside(run: Run) -> list[str]:
    """What the experiments of the headline's second part did, and in how many clips."""
    same: dict[str, list[ExperimentResults]] = {}
    for one in run.others:
        if one.settings["beside_main"] and one.records is not None:
            same.setdefault(_did(run, one), []).append(one)
    lines = []
    for did, mine in same.items():
        clips = list_of(f"{one.n_measured} of {one.kind} pairs" for one in mine)
        did = did.removesuffix("; there was no donor")
        lines.append(f"To measure {_plain(mine[0])}, {_inside(did)} ({mine[0].unit}s: {clips}).")
    return lines


def _inference(run: Run, is_short: bool) -> list[str]:
    """How the intervals and p of the headline were made; in short without the definition of a hand-over layer."""
    found, need = run.results.cached(contrast_of), run.results.cached(need_of)
    has_areas = isinstance(found, Contrast) and found.statistics[ALL]["difference"] is not None
    has_areas |= bool(need and need.statistics["difference"])
    has_layer = not isinstance(found, Contrast) and any(run.hand_over(main).get("layer") for main in run.mains)
    unit = "text"
    if run.mains and sample_of(*(main.pairs for main in run.mains)).n_speakers:
        unit = "text and speaker"
    return [
        *([HAND_OVER.format(unit=unit)] if has_layer and not is_short else []),
        *([AREAS.format(unit=unit)] if has_areas else []),
    ]


def _versions(run: Run) -> Iterator[tuple[int, list[str]]]:
    """The sentences on the other experiments, and before them how much of the rest is cut, from the longest version on.

    1 cuts the headline and the inference, 2 also the question, 3 also the software.
    """
    further = [one for one in run.others if one.records is not None and not one.settings["beside_main"]]
    controls = [one for one in further if one.settings["control"]]
    variants = [one for one in further if one not in controls]
    yield 0, [*_described(run, variants, True), *_described(run, controls, True)]
    yield 0, [*_described(run, variants, True), *_described(run, controls, False)]
    yield 0, [*_described(run, variants, True), *_named("Controls were", controls)]
    yield 0, [*_described(run, variants, False), *_named("Controls were", controls)]
    names = [*_named("Further experiments were", variants), *_named("Controls were", controls)]
    yield 0, names
    yield 1, names
    yield 2, names
    yield 2, []
    yield 3, []


def _described(run: Run, experiments: list[ExperimentResults], with_outcome: bool) -> list[str]:
    """What each did, said once for both kinds of pairs, and what came out in each kind."""
    same: dict[str, list[ExperimentResults]] = {}
    for one in experiments:
        same.setdefault(_did(run, one), []).append(one)
    lines = []
    for did, mine in same.items():
        role = "As a control, " if mine[0].settings["control"] else "In another experiment, " if run.mains else ""
        lines.append(f"{role}{_inside(did) if role else did}.")
        if with_outcome:
            lines += [_outcome(run, one, f"In {one.kind} pairs, " if len(mine) > 1 else "") for one in mine]
    return list(filter(None, lines))


def _outcome(run: Run, experiment: ExperimentResults, where: str) -> str:
    """What came out, in the past; where it is the result of the run, in the words of its own module too.

    Its warnings are left out, and so is the second question, which its description has.
    """
    own = [] if run.mains else run.own(experiment, "sentences")
    own = [line for line in own if not line.startswith(("Warning", "The second question"))]
    found = [] if experiment.settings["reads_only"] else [f"{outcome(experiment)}."]
    text = in_past(" ".join([*found, *own]))
    return f"{where}{text}" if where and text else text[:1].upper() + text[1:]


def _named(what: str, experiments: list[ExperimentResults]) -> list[str]:
    names = dict.fromkeys(map(_plain, experiments))
    return [f"{what}: {list_of(names)}."] if names else []


def _did(run: Run, experiment: ExperimentResults) -> str:
    """Its description in the past, with its layers where the main experiments have others, and a second question."""
    what = in_past(experiment.what.rstrip("."))
    layers = experiment.settings["layers_to_patch"]
    if experiment.settings["by_layer"] and not any(main.settings["layers_to_patch"] == layers for main in run.mains):
        what += f", at {'each of the ' if len(layers) > 1 else ''}{counted(len(layers), 'layer')} {ranges(layers)}"
    if asked := donor_question(experiment):
        what += f" (second question: “{asked}”)"
    return f"{what} (its logits are estimates)" if experiment.is_estimate else what


def _plain(experiment: ExperimentResults) -> str:
    """The name of the intervention in words."""
    name = experiment.settings["intervention"].replace("_", " ").replace("-", " ")
    return f"{name} (estimates)" if experiment.is_estimate else name


def _inside(did: str) -> str:
    """A sentence as it continues another one; the clips A and B keep their letters."""
    return did if re.match(r"[AB]('s|\b(?! \w))", did) else f"{did[:1].lower()}{did[1:]}"


def _computed(run: Run) -> str:
    """Number type, device and versions; those of the libraries that compute the results."""
    settings = [one.settings for one in run.experiments]
    where = list_of(dict.fromkeys(f"{of['dtype']} on {of['device']}" for of in settings))
    named = ("voicepatch", "torch", "transformers", "nnsight")
    versions = dict.fromkeys(
        ", ".join(f"{name} {of['versions'][name]}" for name in named if name in of["versions"]) for of in settings
    )
    return f"Software: {'; '.join(versions)}; {where}."
