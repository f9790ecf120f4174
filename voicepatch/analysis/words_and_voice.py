"""The question of a run with both kinds of pairs: until which layer do B's words, and B's voice, override A's answer?

    results.cached(contrast_of)      # of prosody and semantic; the reason where there is none
    headline(results)              # ["B's words stop overriding A's answer 0.85 layers (95 % interval …) earlier …", …]

The statistics are those of `analysis.contrasts`.
"""

from typing import Any

import pandas as pd

from voicepatch.analysis.comparable import curve_differences
from voicepatch.analysis.contrasts import ALL, ELIGIBLE, Contrast, contrast
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import BOTH_OPEN, with_interval

STEM = "contrast_prosody_vs_semantic"
NOT_SHOWN = (
    "This shows neither when the information leaves the span nor until which layer A's own span is needed; the latter "
    "takes a knock-out of the attention to the span (python cli.py knockout), which is not part of this comparison."
)
OPEN = ("from outside the layers patched", "outside the layers patched")


def contrast_of(results: Results) -> Contrast | str | None:
    """The contrast of both main experiments, the reason where they ran otherwise, None without both as curves."""
    mains = [results.main(kind) for kind in KINDS]
    if not all(mains):
        return None
    found = curve_differences(*mains)
    if found:
        return f"semantic pairs ran with {'; '.join(found)}, as prosody pairs did; give both the same settings"
    one, other = mains
    return contrast(one.side, other.side, seed=one.seed)


def headline(results: Results) -> list[str]:
    """The answer in a sentence, and what it does not show; empty for a run that has not both kinds."""
    found = results.cached(contrast_of)
    if isinstance(found, Contrast):
        return [sentence(found.statistics, _pairs(results)), NOT_SHOWN]
    return [f"Words and voice are not contrasted: {found}."] if found else []


def _pairs(results: Results) -> pd.DataFrame:
    return pd.concat([results.main(kind).measured_pairs for kind in KINDS])


def sentence(statistics: dict[str, Any], pairs: pd.DataFrame) -> str:
    """The difference of the hand-over layers in words; `pairs` are the rows of both kinds' pair lists."""
    over_all, eligible, of = statistics[ALL], statistics[ELIGIBLE], in_these(pairs)
    difference, reason = over_all["difference"], _named(over_all["reason"] or "")
    if difference is None:
        return f"Which of B's words and B's voice stops overriding A's answer earlier, {of}, is open: {reason}."
    voice_first = difference < 0
    value, interval = _counted(over_all, voice_first)
    inserted = f" ({interval})" if interval else ""
    if float(value) == 0:
        text = f"B's words and B's voice stop overriding A's answer at the same layer{inserted}"
    elif voice_first:
        text = f"B's voice stops overriding A's answer {value} layers{inserted} earlier than B's words do"
    else:
        text = f"B's words stop overriding A's answer {value} layers{inserted} earlier than B's voice does"
    text += f", {of}"
    if not interval:
        return f"{text}; {f'there is no 95 % interval: {reason}' if reason else BOTH_OPEN}."
    low, high = over_all["low"], over_all["high"]
    if (low is None or low <= 0) and (high is None or high >= 0):
        text += ". The interval includes 0, so the order of the two is open"
    if eligible["difference"] is not None:
        of_eligible, its_interval = _counted(eligible, voice_first)
        if of_eligible != value:
            text += f". Among the eligible pairs the difference is {of_eligible}"
            text += f" ({its_interval})" if its_interval else ""
    return f"{text}."


def in_these(pairs: pd.DataFrame) -> str:
    """How many texts and speakers the pairs have, as "in these 30 texts and 2 speakers"; no speakers without names."""
    counts = {"text": n_named(pairs, "text_id"), "speaker": n_named(pairs, "speaker")}
    listed = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n]
    return f"in {'this' if counts['text'] == 1 else 'these'} {' and '.join(listed)}"


def n_named(pairs: pd.DataFrame, column: str) -> int:
    """How many different texts (`text_id`) or speakers (`speaker`) the clips of the pairs have."""
    values = pairs.reindex(columns=[f"{column}_a", f"{column}_b"]).to_numpy(object).ravel()
    return len({value for value in values if not pd.isna(value)} - {""})


def _named(reason: str) -> str:
    reason = reason.removeprefix("no limits: ")
    return reason.replace("the first curve", "the prosody curve").replace("the second curve", "the semantic curve")


def _counted(found: dict[str, Any], flip: bool) -> tuple[str, str]:
    """The difference and its interval in the direction in which the sentence counts."""
    value, low, high = found["difference"], found["low"], found["high"]
    if flip:
        value, low, high = -value, None if high is None else -high, None if low is None else -low
    return with_interval(value, low, high, open_ends=OPEN)
