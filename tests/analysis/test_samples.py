"""What counts as a sample: texts always, speakers where the data name enough of them."""

import numpy as np
import pytest

from tests.analysis.simulated import pair_list, records_of
from voicepatch.analysis.contrasts import Side, contrast_with_control
from voicepatch.analysis.hand_over import hand_over
from voicepatch.analysis.layer_metrics import layer_intervals
from voicepatch.analysis.samples import ENOUGH_SPEAKERS, sample_of, speakers_note, too_few_texts


def crossed(n_texts, n_speakers):
    """A pair for each text as spoken by each speaker."""
    texts, speakers = (part.ravel() for part in np.meshgrid(np.arange(n_texts), np.arange(n_speakers)))
    return pair_list(texts).assign(speaker_a=speakers.astype(str), speaker_b=speakers.astype(str))


@pytest.mark.parametrize(
    ("pairs", "note"),
    [
        (crossed(6, 1), "95 % intervals and tests hold for this speaker"),
        (crossed(6, 2), "95 % intervals and tests hold for these 2 speakers"),
        (crossed(6, ENOUGH_SPEAKERS), ""),
        (crossed(6, 2).assign(speaker_a=None, speaker_b=""), ""),
        (crossed(6, 2).drop(columns=["speaker_a", "speaker_b"]), ""),
        (
            crossed(9, 1).assign(speaker_a=list("abcdefghi"), speaker_b=list("abcdefghi")),
            "each text has a speaker of its own, so effects of texts and of speakers cannot be told apart",
        ),
    ],
)
def test_the_note_says_for_which_speakers_the_intervals_hold(pairs, note):
    assert speakers_note(pairs) == note


def test_few_speakers_are_fixed_and_enough_are_a_sample():
    few, enough = (sample_of(crossed(6, n)) for n in (ENOUGH_SPEAKERS - 1, ENOUGH_SPEAKERS))
    assert few.speakers is None and few.n_speakers == 0 and few.sharing.n_codes == 6
    assert enough.n_speakers == ENOUGH_SPEAKERS and enough.sharing.n_codes == 6 + ENOUGH_SPEAKERS


def test_every_interval_is_wider_where_speakers_that_differ_are_a_sample():
    """Half of the speakers flip up to layer 4, the others up to layer 1."""
    pairs = crossed(12, ENOUGH_SPEAKERS)
    last = np.where(pairs["speaker_a"].astype(int) % 2, 4, 1) + np.random.default_rng(0).integers(0, 2, len(pairs))
    records = records_of(pairs, last[:, None] >= np.arange(6))
    control = records_of(pairs, np.zeros((len(pairs), 6), bool))
    widths = {"band": [], "hand-over": [], "contrast": []}
    for its_pairs in (pairs.drop(columns=["speaker_a", "speaker_b"]), pairs):
        bands = layer_intervals(records, its_pairs, resamples=200)
        widths["band"].append((bands["flip_to_target_rate_high"] - bands["flip_to_target_rate_low"])[3])
        found = hand_over(records, its_pairs, resamples=200)
        widths["hand-over"].append(np.subtract(*(5 if found[end] is None else found[end] for end in ("high", "low"))))
        table = contrast_with_control(Side("m", records, its_pairs), Side("c", control, its_pairs), resamples=200)
        widths["contrast"].append((table["high"] - table["low"])[3])
    assert all(both > 2 * texts > 0 for texts, both in widths.values()), widths


def test_the_reason_of_too_few_texts():
    assert too_few_texts(np.array([["a", "b"], ["c", "d"]])) == "an interval needs 6 texts, and there are 4"
    assert too_few_texts(np.array([["a", name] for name in "bcdefg"])) == "one text is in all pairs"
    assert too_few_texts(np.array([[name, name] for name in "abcdef"])) == ""
    assert too_few_texts(np.empty((0, 2))) == "there is no pair"
