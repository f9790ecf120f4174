"""A small run by hand: three pairs, two layers, a flip at the first of them.

run.begin("prosody", SETTINGS, PAIRS)
run.append("prosody", records(0))
"""

from tests.recorded import recorded
from voicepatch.program import VERSION
from voicepatch.types.task import default_task

LABELS = default_task().labels
IDENTITY = {
    "model": {"name": "m", "sha256": "1", "n_layers": 2, "hidden_size": 8, "family": "F", "frames_per_second": 5.0},
    "data": {"name": "d", "source": "here", "sha256": "2", "n_clips": 6, "warnings": []},
    "task": default_task().identity(),
    "prompt": {"system": "", "user": "?", "text": "?", "tokens_after": ["?"]},
    "labels": {"order": list(LABELS), "token_ids": [1, 2, 3, 4, 5]},
}
SETTINGS = {
    "intervention": "patch",
    "doc": None,
    "code_sha256": "3",
    **recorded("patch"),
    "kind": "prosody",
    "patch_alpha": 1.0,
    "options": {},
    "align": "truncate_to_min",
    "max_pairs_prosody": 3,
    "pair_sampling_seed": 42,
    "only": "all",
    "same_speaker": True,
    "both_directions": False,
    "max_acoustic_distance": 0.0,
    "where": [],
    "by": [],
    "on_bad_clip": "stop",
    "max_seconds": 60,
    "max_failed": 0.01,
    "versions": {"voicepatch": VERSION, "torch": "1"},
    "program_sha256": "4",
    "layers_to_patch": [0, 1],
    "patch_all_layers": True,
    "swept": [],
    "engine": "tail",
    "device": "cpu",
    "dtype": "float32",
    "engine_tolerance": 1e-3,
    "near_tie_margin": 1e-3,
    "threads": 1,
    "use_cache": False,
}


def pair(i):
    shared = {"text_id": f"t{i}", "semantic_label": "happy", "speaker": None, "text_type": None}
    sides = {f"{key}_{side}": value for side in "ab" for key, value in shared.items()}
    row = {"pair_id": f"p{i}", "kind": "prosody", "clip_a": f"a{i}", "clip_b": f"b{i}", "target": "sad"}
    return row | sides | {"prosody_label_a": "angry", "prosody_label_b": "sad"}


PAIRS = [pair(i) for i in range(3)]


def failed(i):
    return {"pair_id": f"p{i}", "reason": "a logit is not finite", "skipped": False}


def logits(label):
    return dict.fromkeys(LABELS, 0.0) | {label: 2.5}


def records(i):
    """Pair i at both layers: its answer is B's at layer 0 and its own at layer 1."""
    rows = []
    for layer, answer in enumerate(("sad", "angry")):
        rows.append(
            {
                "pair_id": f"p{i}",
                "clip_a": f"a{i}",
                "clip_b": f"b{i}",
                "layer": layer,
                "target": "sad",
                "pred_base": "angry",
                "pred_patch": answer,
                "eligible": True,
                "flip_to_target": answer == "sad",
                "flip_from_base": answer != "angry",
                "delta_logit_target": 2.5 if answer == "sad" else 0.0,
                "logits_base": logits("angry"),
                "logits_patch": logits(answer),
                "logits_donor": logits("sad"),
                "len_a": 10,
                "len_b": 12,
                "n_patched": 10,
                "patch_alpha": 1.0,
                "patched_from": 15,
                "semantic_label_b": "happy",
                "prosody_label_b": "sad",
                "label_mass_base": 0.9,
                "label_mass_patch": 0.8,
                "site": "output",
                "stream_shift": 1.0,
            }
        )
    return rows
