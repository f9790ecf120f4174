"""The answer of a run in two sentences: until which layer B overrides A's answer, and until which A's span is needed.

    headline(results)                # ["B's words stop overriding A's answer 1.0 layers (95 % …) earlier …", …]
    results.cached(contrast_of)      # of prosody and semantic pairs; the reason where there is none

The statistics are those of `analysis.contrasts` and `analysis.need`.
"""

from typing import Any

import pandas as pd

from voicepatch.analysis.comparable import curve_differences
from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrasts import ALL, ELIGIBLE, Contrast, contrast
from voicepatch.analysis.experiment_results import PLACES
from voicepatch.analysis.need import FOLLOW, VOICE, WORDS, need_of
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import BOTH_OPEN, p_text, with_interval
from voicepatch.analysis.samples import sample_of, speakers_note

STEM = "contrast_prosody_vs_semantic"
RING = 0.05  # p and p_max below it
SPAN = "span"
MEASURED = (
    "Overriding is measured by patching: until which layer B's states, written over the span, still change A's answer. "
    "Need is measured by a knock-out: an answer needs A's span at a layer if it changes when the later positions "
    "cannot attend to the span from there on. Neither shows when the information leaves the span. Differences in "
    "layers are those of the areas under the curves; a midpoint is where a curve crosses half of its start."
)
OF_B = {"prosody": "B's voice", "semantic": "B's words"}


def contrast_of(results: Results) -> Contrast | str | None:
    """The contrast of both main experiments, the reason where they ran otherwise, None without both as curves."""
    mains = [results.main(kind) for kind in KINDS]
    if not all(mains):
        return None
    found = curve_differences(*mains)
    if found:
        return f"semantic pairs ran with {'; '.join(found)}, as prosody pairs did; give both the same settings"
    one, other = mains
    if other.side.records.empty:
        return NONE_LEFT
    return contrast(one.side, other.side, seed=one.seed)


def headline(results: Results, midpoints: bool = True) -> list[str]:
    """A sentence on overriding and one on need, as far as the run has the experiments; with the `midpoints` of need."""
    return [*overriding(results), *_need(results, midpoints)]


def overriding(results: Results) -> list[str]:
    """Until which layer B overrides A's answer, in words."""
    found, mains = results.cached(contrast_of), {kind: main for kind in KINDS if (main := results.main(kind))}
    places = {str(main.settings["options"].get("at", SPAN)) for main in mains.values()} - {SPAN}
    elsewhere = [
        f"B's states were written {PLACES[place]}, not over the span." for place in sorted(places & set(PLACES))
    ]
    if isinstance(found, Contrast):
        of_both = sentence(found.statistics, pd.concat([main.side.pairs for main in mains.values()]))
        return [of_both, *elsewhere]
    of_one = [of_kind(kind, results.hand_over(kind), main.side.pairs) for kind, main in mains.items()]
    return [*of_one, *elsewhere, *([f"Words and voice are not contrasted: {found}."] if found else [])]


def what_p_means(results: Results) -> str:
    """What the p of the headline compares, what its sample is, and why it can be small without a ring at any layer."""
    found, need = results.cached(contrast_of), results.cached(need_of)
    of_contrast = found.statistics[ALL] if isinstance(found, Contrast) else {"p": None}
    differences = [of_contrast, (need.statistics["difference"] if need else None) or {"p": None}]
    if all(one["p"] is None for one in differences):
        return ""
    mains = [main for kind in KINDS if (main := results.main(kind))]
    speakers = sample_of(*(main.side.pairs for main in mains)).n_speakers if mains else 0
    drawn = "texts and speakers" if speakers else "texts"
    note = speakers_note(*(main.pairs for main in mains)) if mains else ""
    lines = [
        f"p is about all layers together: how often {drawn} drawn anew would give a difference of the areas under the "
        "two curves as large as this one, if the true areas were equal" + (f"; {note}." if note else ".")
    ]
    if isinstance(found, Contrast) and of_contrast["p"] is not None and of_contrast["p"] < RING:
        if not (found.table["p_max"] < RING).any():
            lines.append(
                "No single layer has a ring in the figure of the difference, since a ring needs a difference at that "
                "layer alone, corrected for the number of layers."
            )
    return " ".join(lines)


def of_kind(kind: str, found: dict[str, Any], pairs: pd.DataFrame) -> str:
    """Until which layer B overrides A's answer in pairs of one kind, in words; `found` is the hand-over layer."""
    overrides = f"{OF_B[kind]} {'overrides' if kind == 'prosody' else 'override'}"
    if why := _why_open(found):
        return f"Until which layer {overrides} A's answer, {in_these(pairs)}, is open: {why}."
    return f"{overrides} A's answer until {_layer(found)}, {in_these(pairs)}."


def _need(results: Results, midpoints: bool) -> list[str]:
    found = results.cached(need_of)
    if found is None:
        return []
    of_counted = [need_sentence(found.statistics, found.pairs, midpoints)] if found.names else []
    return [*of_counted, *(f"{line}." for line in found.left_out_lines)]


def need_sentence(statistics: dict[str, Any], pairs: pd.DataFrame, midpoints: bool = True) -> str:
    """Until which layer A's span is needed, in words; `pairs` have a row for each clip that counts."""
    groups = {name: statistics[name] for name in FOLLOW if name in statistics}
    if not groups:
        return "Until which layer A's span is needed is open: no clip answers with the label of its voice or its words."
    difference, of = statistics["difference"], in_these(pairs)
    if difference is None or difference["difference"] is None:
        return _of_each(groups, of)
    if why := _why_open(difference):
        who = "those that follow A's voice or those that follow A's words"
        why = _named(why, "the answers that follow the voice", "the answers that follow the words")
        return f"Which answers need A's span for more layers, {who}, {of}, is open: {why}."
    value, inserted, voice_first = _difference(difference)
    first, second = (VOICE, WORDS) if voice_first else (WORDS, VOICE)
    text = f"{_capital(FOLLOW[first])} stop needing A's span {value} layers{inserted} earlier than {FOLLOW[second]} do"
    if _includes_0(difference):
        value, inserted, _ = _difference(difference, flip=False)
        text = f"It is open which answers need A's span for longer: voice − words is {value} layers{inserted}"
    middles = [f"{name} {_layer(found)}" for name, found in groups.items() if found["layer"] is not None]
    text += f", {of}" + (f" (midpoints: {'; '.join(middles)})" if middles and midpoints else "")
    return f"{text}."


def _of_each(groups: dict[str, dict[str, Any]], of: str) -> str:
    """Until which layer the answers of each group need the span, and for which of them this is open."""
    known = [
        f"{_capital(FOLLOW[name])} need A's span until {_layer(found)}, {of}."
        for name, found in groups.items()
        if not _why_open(found)
    ]
    reasons: dict[str, list[str]] = {}
    for name, found in groups.items():
        if why := _why_open(found):
            reasons.setdefault(why, []).append(FOLLOW[name])
    still_open = [
        f"Until which layer {' and '.join(who)} need A's span, {of}, is open: {why}." for why, who in reasons.items()
    ]
    return " ".join([*known, *still_open])


def _why_open(found: dict[str, Any]) -> str:
    """Why a layer or a difference is not known: there is none, or it has no interval; else ""."""
    if "layer" in found and found["layer"] is not None and found["reason"] is None:
        return BOTH_OPEN if found["low"] is found["high"] is None else ""
    if found.get("difference") is not None and found["low"] is not None:
        return ""
    return found["reason"]


def _layer(found: dict[str, Any]) -> str:
    """A layer, and its interval in brackets where it has one."""
    layer, interval = with_interval(found["layer"], found["low"], found["high"])
    return f"layer {layer} ({interval})" if interval else f"layer {layer}"


def sentence(statistics: dict[str, Any], pairs: pd.DataFrame) -> str:
    """The difference of the two curves of overriding in words; `pairs` are the rows of both kinds' pair lists."""
    over_all, eligible, of = statistics[ALL], statistics[ELIGIBLE], in_these(pairs)
    if why := _why_open(over_all):
        why = _named(why, "the prosody curve", "the semantic curve")
        return f"Which of B's words and B's voice stops overriding A's answer earlier, {of}, is open: {why}."
    value, inserted, voice_first = _difference(over_all)
    if _includes_0(over_all):
        value, inserted, voice_first = _difference(over_all, flip=False)
        which = "It is open which of B's voice and B's words overrides A's answer for longer"
        text = f"{which}: voice − words is {value} layers{inserted}"
    elif voice_first:
        text = f"B's voice stops overriding A's answer {value} layers{inserted} earlier than B's words do"
    else:
        text = f"B's words stop overriding A's answer {value} layers{inserted} earlier than B's voice does"
    text += f", {of}"
    if not _why_open(eligible):
        of_eligible, its_interval, _ = _difference(eligible, voice_first)
        if of_eligible != value:
            text += f". Among the eligible pairs the difference is {of_eligible}{its_interval}"
    return f"{text}."


def _difference(found: dict[str, Any], flip: bool | None = None) -> tuple[str, str, bool]:
    """The size of a difference, its interval and p in brackets, and whether its sign was changed for it."""
    value, low, high = found["difference"], found["low"], found["high"]
    flip = value < 0 if flip is None else flip
    if flip:
        value, low, high = -value, -high, -low
    size, interval = with_interval(value, low, high)
    return size, f" ({interval}, {p_text(found['p'])})", flip


def _includes_0(found: dict[str, Any]) -> bool:
    return found["low"] <= 0 <= found["high"]


def in_these(pairs: pd.DataFrame) -> str:
    """How many texts and speakers the pairs have, as "in these 30 texts and 2 speakers"; no speakers without names."""
    counts = {"text": n_named(pairs, "text_id"), "speaker": n_named(pairs, "speaker")}
    listed = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n]
    return f"in {'this' if counts['text'] == 1 else 'these'} {' and '.join(listed)}"


def n_named(pairs: pd.DataFrame, column: str) -> int:
    """How many different texts (`text_id`) or speakers (`speaker`) the clips of the pairs have."""
    values = pairs.reindex(columns=[f"{column}_a", f"{column}_b"]).to_numpy(object).ravel()
    return len({value for value in values if not pd.isna(value)} - {""})


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _named(reason: str, first: str, second: str) -> str:
    return reason.replace("the first curve", first).replace("the second curve", second)
