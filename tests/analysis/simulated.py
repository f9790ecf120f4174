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
