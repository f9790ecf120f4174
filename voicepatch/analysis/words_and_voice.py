"""The answer of a run in two sentences: until which layer B overrides A's answer, and until which A's span is needed.

    headline(results)                # ["B's words stop overriding A's answer 1.0 layers (95 % …) earlier …", …]
    midpoints(results)               # "Midpoints of need: voice layer 2.0 (95 % …); words layer 4.4 (95 % …)."
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
NOT_SHOWN = "The data do not show"  # begins a sentence without a result
UNDECIDED = "The data do not decide"  # begins a sentence whose interval includes 0
OF_AREAS = "the areas under the two curves"
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


def headline(results: Results) -> list[str]:
    """What the run shows on overriding and on need, as far as it has the experiments."""
    return [*overriding(results), *_need(results)]


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
    return [*of_one, *elsewhere, *([f"Words and voice are not contrasted. {_sentence(found)}"] if found else [])]


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
    if why := _why_unknown(found):
        return f"{NOT_SHOWN} until which layer {overrides} A's answer, {in_these(pairs)}. {_sentence(why)}"
    return f"{overrides} A's answer until {_layer(found)}, {in_these(pairs)}."


def _need(results: Results) -> list[str]:
    found = results.cached(need_of)
    if found is None:
        return []
    of_counted = [need_sentence(found.statistics, found.pairs)] if found.names else []
    return [*of_counted, *(f"{line}." for line in found.left_out_lines)]


def need_sentence(statistics: dict[str, Any], pairs: pd.DataFrame) -> str:
    """Until which layer A's span is needed, in words; `pairs` have a row for each clip that counts."""
    groups = _groups(statistics)
    if not groups:
        return f"{NOT_SHOWN} until which layer A's span is needed. No clip's answer is the label of its voice or words."
    difference, of = statistics["difference"], in_these(pairs)
    if difference is None or difference["difference"] is None:
        return _of_each(groups, of)
    if why := _why_unknown(difference):
        why = _named(why, "the answers that follow the voice", "the answers that follow the words")
        who = "those that follow A's voice or those that follow A's words"
        return f"{NOT_SHOWN} which answers need A's span for longer, {who}, {of}. {_sentence(why)}"
    if _includes_0(difference):
        return (
            f"{UNDECIDED} whether {FOLLOW[VOICE]} or {FOLLOW[WORDS]} need A's span for longer, {of}: "
            f"{_including_0(difference)}."
        )
    value, interval, voice_first = _difference(difference)
    first, second = (VOICE, WORDS) if voice_first else (WORDS, VOICE)
    start = f"{_capital(FOLLOW[first])} stop needing A's span {value} layers ({interval}) earlier"
    return f"{start} than {FOLLOW[second]} do, {of}, by {OF_AREAS}."


def midpoints(results: Results) -> str:
    """The midpoints of need in one sentence; "" where there is none."""
    found = results.cached(need_of)
    groups = _groups(found.statistics) if found else {}
    known = [f"{name} {_layer(one)}" for name, one in groups.items() if one["layer"] is not None]
    return f"Midpoints of need: {'; '.join(known)}." if known else ""


def _groups(statistics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: statistics[name] for name in FOLLOW if name in statistics}


def _of_each(groups: dict[str, dict[str, Any]], of: str) -> str:
    """Until which layer the answers of each group need the span, and for which of them the data do not show it."""
    known = [
        f"{_capital(FOLLOW[name])} need A's span until {_layer(found)}, {of}."
        for name, found in groups.items()
        if not _why_unknown(found)
    ]
    reasons: dict[str, list[str]] = {}
    for name, found in groups.items():
        if why := _why_unknown(found):
            reasons.setdefault(why, []).append(FOLLOW[name])
    unknown = [
        f"{NOT_SHOWN} until which layer {' and '.join(who)} need A's span, {of}. {_sentence(why)}"
        for why, who in reasons.items()
    ]
    return " ".join([*known, *unknown])


def _why_unknown(found: dict[str, Any]) -> str:
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
    if why := _why_unknown(over_all):
        why = _named(why, "the prosody curve", "the semantic curve")
        return f"{NOT_SHOWN} which of B's words and B's voice overrides A's answer for longer, {of}. {_sentence(why)}"
    value, interval, voice_first = _difference(over_all)
    if _includes_0(over_all):
        value, _, voice_first = _difference(over_all, flip=False)
        text = f"{UNDECIDED} whether B's voice or B's words override A's answer for longer, {of}: "
        text += _including_0(over_all)
    else:
        first, second = ("voice stops", "words do") if voice_first else ("words stop", "voice does")
        text = f"B's {first} overriding A's answer {value} layers ({interval}) earlier than B's {second}, "
        text += f"{of}, by {OF_AREAS}"
    if not _why_unknown(eligible):
        of_eligible, its_interval, _ = _difference(eligible, voice_first)
        if of_eligible != value:
            text += f". Among the eligible pairs the difference is {of_eligible} ({its_interval})"
    return f"{text}."


def _difference(found: dict[str, Any], flip: bool | None = None) -> tuple[str, str, bool]:
    """The size of a difference, its interval and p, and whether its sign was changed for it."""
    value, low, high = found["difference"], found["low"], found["high"]
    flip = value < 0 if flip is None else flip
    if flip:
        value, low, high = -value, -high, -low
    size, interval = with_interval(value, low, high)
    return size, f"{interval}, {p_text(found['p'])}", flip


def _including_0(found: dict[str, Any]) -> str:
    """A difference whose interval includes 0, in words."""
    value, interval, _ = _difference(found, flip=False)
    return f"{OF_AREAS} differ by {value} layers (voice − words, {interval})"


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


def _sentence(text: str) -> str:
    return f"{_capital(text)}."


def _named(reason: str, first: str, second: str) -> str:
    return reason.replace("the first curve", first).replace("the second curve", second)
