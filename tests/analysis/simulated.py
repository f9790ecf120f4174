"""Pairs and flips that are drawn at random, with known rates."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from voicepatch.analysis.contrasts import Side, contrast_with_control

LABELS = ["neutral", "happy", "sad", "angry", "surprised"]
SAD, HAPPY = ({label: 4.0 * (label == answer) for label in LABELS} for answer in ("sad", "happy"))
THRESHOLD = NormalDist().inv_cdf


def pair_list(text_a, text_b=None):
    text_a = np.asarray(text_a)
    names = [f"p{i:03d}" for i in range(len(text_a))]
    texts = {"text_id_a": text_a, "text_id_b": text_a if text_b is None else text_b}
    return pd.DataFrame({"pair_id": names, "kind": "prosody", "clip_a": [f"a{i}" for i in range(len(names))]} | texts)


def flips_of(pairs, flips, eligible=True, alpha=1.0):
    """The part of the records that says who flips, of flips [pairs, layers]."""
    n, layers = np.shape(flips)
    cells = {"pair_id": np.repeat(pairs["pair_id"].to_numpy(), layers), "layer": np.tile(np.arange(layers), n)}
    eligible = np.repeat(np.broadcast_to(eligible, n), layers)
    return pd.DataFrame(cells | {"patch_alpha": alpha, "eligible": eligible, "flip_to_target": np.ravel(flips)})


def records_of(pairs, flips, eligible=True, delta=None):
    """Whole records; an ineligible pair has the target from the beginning."""
    records = flips_of(pairs, flips, eligible)
    flipped, eligible = records["flip_to_target"].to_numpy(), records["eligible"].to_numpy()
    return records.assign(
        target="happy",
        pred_base=np.where(eligible, "sad", "happy"),
        pred_patch=np.where(flipped, "happy", "sad"),
        flip_from_base=flipped == eligible,
        delta_logit_target=flipped * 4.0 if delta is None else np.ravel(delta),
        logits_base=np.where(eligible, SAD, HAPPY),
        logits_patch=np.where(flipped, HAPPY, SAD),
        logits_donor=[HAPPY] * len(records),
        semantic_label_b="happy",
        prosody_label_b="happy",
        label_mass_patch=1.0,
        stream_shift=0.5,
        site="output",
    )


def contrast(main, control, main_pairs, control_pairs, **how):
    return contrast_with_control(Side("main", main, main_pairs), Side("control", control, control_pairs), **how)


def drawn_pairs(rng, kind, n=100, texts=30):
    recipient = rng.integers(0, texts, n)
    return recipient, recipient if kind == "prosody" else (recipient + rng.integers(1, texts, n)) % texts


def effects(rng, a, b, layers, share=0.5, texts=30):
    """Standard normal, [pairs, layers], similar from layer to layer; half the variance is the texts'."""

    def smooth(n):
        depth = np.linspace(0, np.pi, layers)
        waves = np.array([np.ones(layers), np.cos(depth), np.cos(2 * depth)])
        return rng.normal(size=(n, 3)) @ (waves / np.linalg.norm(waves, axis=0))

    as_a, as_b = smooth(texts), smooth(texts)
    of_texts = as_a[a] if (a == b).all() else (as_a[a] + as_b[b]) / np.sqrt(2)
    return np.sqrt(share) * of_texts + np.sqrt(1 - share) * smooth(len(a))


def independent_limits(rate, n):
    z = THRESHOLD(0.975)
    middle, half = (rate + z**2 / 2 / n), z * np.sqrt(rate * (1 - rate) / n + z**2 / 4 / n**2)
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def other_texts(rng, a, texts):
    return (a + rng.integers(1, texts, len(a))) % texts


CONTROLS = [
    ("semantic", "same pairs"),
    ("semantic", "random donor"),
    ("semantic", "own pairs"),
    ("prosody", "random donor"),
]


def control_without_effect(rng, kind, control, texts, speakers=None, n=24, layers=8):
    """A main experiment and a control with the same rates: `p_max` of their contrast by layer.

    `speakers` are effects [sides, speakers, layers] of the speakers.
    """
    a = rng.permutation(np.arange(n) % texts)
    b = a if kind == "prosody" else other_texts(rng, a, texts)
    c = rng.permutation(a) if control == "own pairs" else a
    d = b if control == "same pairs" else other_texts(rng, c, texts)
    who = rng.integers(1 if speakers is None else speakers.shape[1], size=n)
    sides = []
    for number, codes in enumerate(((a, b), (c, d))):
        pairs = pair_list(*codes).assign(speaker_a=who.astype(str), speaker_b=who.astype(str))
        if control == "own pairs" and number:
            pairs["clip_a"] += "'"
        latent = effects(rng, *codes, layers, share=0.6, texts=texts)
        latent = latent if speakers is None else latent + speakers[number][who]
        sides.append((flips_of(pairs, latent < 0), pairs))
    (main, main_pairs), (other, other_pairs) = sides
    return contrast(main, other, main_pairs, other_pairs, seed=int(rng.integers(1 << 30)), resamples=199)["p_max"]


def one_text_a_pair(n_texts, each=2):
    return np.repeat(np.arange(n_texts), each)[:, None].repeat(2, 1)


def two_texts_a_pair(n_texts, n_pairs, random):
    pairs = [(a, b) for a in range(n_texts) for b in range(n_texts) if a != b]
    return np.array(pairs)[random.choice(len(pairs), n_pairs, replace=False)]


def effects_without_effect(texts, n_cells, random):
    """Half of the variance is the texts', and neighbouring cells are similar."""
    of_a, of_b, of_pair = (random.standard_normal((rows, n_cells)) for rows in (texts.max() + 1,) * 2 + (len(texts),))
    own = of_a[texts[:, 0]] + np.where(texts[:, :1] != texts[:, 1:], of_b[texts[:, 1]], 0)
    effects = own + of_pair
    return effects + np.roll(effects, 1, axis=1)
