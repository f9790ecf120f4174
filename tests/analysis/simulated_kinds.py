"""Two main experiments whose true difference is known: texts, speakers and clips have effects that both share.

    one, other = draw(np.random.default_rng(0), n_texts=30, later=0.0)
    truth(later=1.0)                       # difference by layer and of the hand-over layers

A pair flips up to a layer of its own, the sum of effects of what it is made of; some texts never flip, and some
recipients give the target by themselves.
"""

import numpy as np
import pandas as pd

from voicepatch.analysis.contrasts import Side

LAYERS, MIDDLE = np.arange(8), 4.0
OWN, ACTIVE = 0.1, 0.7  # share of recipients that give the target already; of texts that ever flip
TEXT, SPEAKER, CLIP, PAIR = 0.7, 0.5, 0.4, 0.7  # spread of the effects on a pair's last layer


def draw(random, n_texts=30, later=0.0, n_pairs=80, n_speakers=1, n_voices=5):
    """A prosody and a semantic experiment; the hand-over layer of the first is `later` layers behind."""
    text, active = random.normal(0, TEXT, n_texts), random.random(n_texts) < ACTIVE
    speaker = random.normal(0, SPEAKER, n_speakers) * (n_speakers > 1)
    clip = random.normal(0, CLIP, (n_texts, n_speakers, n_voices))
    own = random.random((n_texts, n_speakers, n_voices)) < OWN
    sides = []
    for name, shift in (("prosody", later), ("semantic", 0.0)):
        a = random.integers(n_texts, size=n_pairs)
        b = a if name == "prosody" else (a + random.integers(1, n_texts, size=n_pairs)) % n_texts
        who, voice_a, voice_b = (random.integers(n, size=n_pairs) for n in (n_speakers, n_voices, n_voices))
        of_texts = text[a] if name == "prosody" else (text[a] + text[b]) / np.sqrt(2)
        of_clips = (clip[a, who, voice_a] + clip[b, who, voice_b]) / np.sqrt(2)
        last = MIDDLE + shift + of_texts + speaker[who] + of_clips + random.normal(0, PAIR, n_pairs)
        flips = (last[:, None] > LAYERS) & active[b][:, None] | own[a, who, voice_a][:, None]
        sides.append(_side(name, flips, own[a, who, voice_a], a, b, who))
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


def truth(later, n_speakers=1, n_pairs=200_000):
    """The differences by layer and of the hand-over layers, from very many pairs of as many texts."""
    random = np.random.default_rng(99)
    spread = np.sqrt(TEXT**2 + CLIP**2 + PAIR**2 + (SPEAKER**2 if n_speakers > 1 else 0))
    last = MIDDLE + random.normal(0, spread, n_pairs)
    rates = [(last[:, None] + shift > LAYERS).mean(0) * ACTIVE * (1 - OWN) + OWN for shift in (later, 0.0)]
    levels = [(rate[0] + OWN) / 2 for rate in rates]
    at = [np.interp(-level, -rate, LAYERS) for rate, level in zip(rates, levels, strict=True)]
    return rates[0] - rates[1], at[0] - at[1]
