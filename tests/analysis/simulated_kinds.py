"""Two main experiments whose true difference is known: texts, speakers and clips have effects that both share.

    one, other = draw(np.random.default_rng(0), n_texts=30, later=0.0)
    truth(later=1.0)                       # difference by layer and of the areas
    true_rates("prosody", design="a dip")  # of one curve, by layer

A pair flips up to a layer of its own, the sum of effects of what it is made of; some texts never flip, and some
recipients give the target by themselves.
"""

from functools import cache

import numpy as np
import pandas as pd

from voicepatch.analysis.contrasts import Side

LAYERS, MIDDLE = np.arange(8), 4.0
OWN, ACTIVE = 0.1, 0.7  # share of recipients that give the target already; of texts that ever flip
TEXT, SPEAKER, CLIP, PAIR = 0.7, 0.5, 0.4, 0.7  # spread of the effects on a pair's last layer
# Share of texts that ever flip, by design.
DESIGNS = {
    "plain": ACTIVE,
    "all texts flip": 1.0,
    "two sorts of text": ACTIVE,
    "a dip": ACTIVE,
    "low rates": ACTIVE / 2,
}
APART = 1.6  # early and late texts are as far from the middle
KINDS = ("prosody", "semantic")


def draw(
    random,
    n_texts=30,
    later=0.0,
    n_pairs=80,
    n_speakers=1,
    n_voices=5,
    design="plain",
    of_speakers=None,
    kinds=KINDS,
):
    """A prosody and a semantic experiment; the first falls `later` layers behind the other.

    `of_speakers` are the effects of the speakers, where they are given.
    """
    two_sorts = random.choice([-APART, APART], n_texts)
    text = two_sorts if design == "two sorts of text" else random.normal(0, TEXT, n_texts)
    active = random.random(n_texts) < DESIGNS[design]
    dips = (random.random(n_texts) < 0.5) & (design == "a dip")
    drawn = random.normal(0, SPEAKER, n_speakers) * (n_speakers > 1)
    speaker = drawn if of_speakers is None else np.asarray(of_speakers)
    pairs = {}
    for name in kinds:
        a = random.integers(n_texts, size=n_pairs)
        b = a if name == "prosody" else (a + random.integers(1, n_texts, size=n_pairs)) % n_texts
        pairs[name] = [a, b, *(random.integers(n, size=n_pairs) for n in (len(speaker), n_voices, n_voices))]
    a, b, who, voice_a, voice_b = np.hstack(list(pairs.values()))
    of_a, of_b = ((texts * len(speaker) + who) * n_voices + voice for texts, voice in ((a, voice_a), (b, voice_b)))
    clips, which = np.unique(np.concatenate([of_a, of_b]), return_inverse=True)
    clip, owns = random.normal(0, CLIP, len(clips)), random.random(len(clips)) < OWN
    of_clips = (clip[which[: len(a)]] + clip[which[len(a) :]]) / np.sqrt(2)
    own = owns[which[: len(a)]]
    sides = []
    for number, (name, (a, b, who, *_)) in enumerate(pairs.items()):
        mine = slice(number * n_pairs, (number + 1) * n_pairs)
        shift = later if number == 0 else 0.0
        of_texts = text[a] if name == "prosody" else (text[a] + text[b]) / np.sqrt(2)
        last = MIDDLE + shift + of_texts + speaker[who] + of_clips[mine] + random.normal(0, PAIR, n_pairs)
        flips = (last[:, None] > LAYERS) & active[b][:, None]
        flips[:, 2] &= ~dips[a]
        sides.append(_side(name, flips | own[mine][:, None], own[mine], a, b, who))
    return sides


def _side(name, flips, own, a, b, who):
    n, n_layers = flips.shape
    ids = np.array([f"{number:04d}" for number in range(n)])
    records = pd.DataFrame(
        {
            "pair_id": np.repeat(ids, n_layers),
            "layer": np.tile(LAYERS, n),
            "patch_alpha": 1.0,
            "eligible": np.repeat(~own, n_layers),
            "flip_to_target": flips.ravel(),
        }
    )
    columns = {"pair_id": ids, "text_id_a": a, "text_id_b": b, "speaker_a": who, "speaker_b": who}
    return Side(name, records, pd.DataFrame(columns))


@cache
def true_rates(kind, later=0.0, n_speakers=1, design="plain", of_speakers=None, n_pairs=100_000):
    """The rates by layer and A's own rate, from very many pairs of as many texts."""
    random, many = np.random.default_rng(99), n_pairs if n_speakers > 1 else 1
    (side,) = draw(random, n_pairs, later, n_pairs, many, 1, design, of_speakers, kinds=(kind,))
    flips = side.records["flip_to_target"].to_numpy().reshape(n_pairs, -1)
    return flips.mean(0), 1 - side.records["eligible"].to_numpy().reshape(n_pairs, -1)[:, 0].mean()


def area(rates, own):
    """The area under true rates by layer, above A's own rate."""
    return np.trapezoid((rates - own) / (rates[0] - own), LAYERS)


def truth(later, n_speakers=1, design="plain"):
    """The differences by layer and of the areas of the two experiments of `draw`."""
    (one, own), (other, its_own) = (
        true_rates(kind, late, n_speakers, design) for kind, late in (("prosody", later), ("semantic", 0.0))
    )
    return one - other, area(one, own) - area(other, its_own)
