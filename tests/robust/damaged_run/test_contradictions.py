"""Files of a run that are each as declared, but contradict each other: one line, status 1, and no figure."""

import copy
import json

import pytest

from tests.analysis.made_run import change, make_run
from tests.robust.damaged_run.damage import error_line, report, rewritten, rows_of


def with_row(number, **values):
    def edit(run):
        rows = rows_of(run)
        rows[number - 1] |= {
            key: value(rows[number - 1]) if callable(value) else value for key, value in values.items()
        }
        return "patching_records_prosody.jsonl", rows, number

    return edit


def with_rows(change_rows, line, file="patching_records_prosody.jsonl"):
    def edit(run):
        rows = rows_of(run, file)
        return file, change_rows(rows) or rows, line

    return edit


def raised(logits):
    label = min(logits, key=logits.get)
    return logits | {label: logits[label] + 1}


OF_A = [f"{key}_a" for key in ("clip", "text_id", "semantic_label", "prosody_label", "text_type")]
PAIRS_FILE, FAILED_FILE = "pair_list_prosody.jsonl", "failed_pairs_prosody.jsonl"
OTHER = {"happy": "sad", "sad": "angry", "angry": "neutral", "neutral": "surprised", "surprised": "happy"}
CONTRADICTIONS = {
    "a row lost in the midst": with_rows(lambda rows: rows.pop(2) and None, 3),
    "the last row lost": with_rows(lambda rows: rows.pop() and None, 6),
    "a pair lost": with_rows(lambda rows: rows[:4], 5),
    "a row of a foreign pair": with_row(2, pair_id="of another run"),
    "a pair at two places": with_rows(lambda rows: [*rows[:2], *rows[2:4], *rows[:2], *rows[4:]], 5),
    "a layer that was not patched": with_row(2, layer=7),
    "a dose that was not given": with_row(2, patch_alpha=0.5),
    "pred_patch against the logits": with_row(3, pred_patch=lambda row: OTHER[row["pred_patch"]]),
    "pred_base against the logits": with_row(3, pred_base=lambda row: OTHER[row["pred_base"]]),
    "eligible": with_row(3, eligible=lambda row: not row["eligible"]),
    "flip_to_target": with_row(3, flip_to_target=lambda row: not row["flip_to_target"]),
    "flip_from_base": with_row(3, flip_from_base=lambda row: not row["flip_from_base"]),
    "delta_logit_target": with_row(3, delta_logit_target=lambda row: row["delta_logit_target"] + 1e-5),
    "the patched logits of another model": with_row(
        3, logits_patch=lambda row: {k: -v for k, v in row["logits_patch"].items()}
    ),
    "A's logits": with_row(4, logits_base=lambda row: raised(row["logits_base"])),
    "B's logits": with_row(4, logits_donor=lambda row: raised(row["logits_donor"])),
    "A's length": with_row(4, len_a=99),
    "B's length": with_row(4, len_b=99),
    "another clip A": with_row(2, clip_a="another"),
    "another clip B": with_row(2, clip_b="another"),
    "another target": with_row(2, target=lambda row: OTHER[row["target"]]),
    "another label of B": with_row(2, prosody_label_b=lambda row: OTHER[row["prosody_label_b"]]),
    "a pair list cut": with_rows(lambda rows: rows[:3], 3, PAIRS_FILE),
    "a pair twice": with_rows(lambda rows: [*rows[:4], rows[0]], 5, PAIRS_FILE),
    "a pair of another kind": with_rows(lambda rows: rows[1].update(kind="semantic"), 2, PAIRS_FILE),
    "a target that is not B's label": with_rows(
        lambda rows: rows[1].update(target=OTHER[rows[1]["target"]]), 2, PAIRS_FILE
    ),
    "two texts in a prosody pair": with_rows(lambda rows: rows[1].update(text_id_a="another"), 2, PAIRS_FILE),
    "one label of the voice in a prosody pair": with_rows(
        lambda rows: rows[1].update(prosody_label_a=rows[1]["prosody_label_b"]), 2, PAIRS_FILE
    ),
    "a pair twice under two names": with_rows(
        lambda rows: rows[3].update(rows[0] | {"pair_id": rows[3]["pair_id"]}), 4, PAIRS_FILE
    ),
    "another speaker of a clip": with_rows(
        lambda rows: rows[3].update({key: rows[0][key] for key in OF_A} | {"speaker_a": "another"}), 4, PAIRS_FILE
    ),
    "a failed pair that is not in the list": with_rows(lambda rows: rows[1].update(pair_id="x"), 2, FAILED_FILE),
    "a failed pair twice": with_rows(lambda rows: [rows[0], rows[0]], 2, FAILED_FILE),
    "a failed pair less": with_rows(lambda rows: rows[:1], None, FAILED_FILE),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_files_that_contradict_each_other_are_errors(run, intact, drawn, what):
    file, rows, line = CONTRADICTIONS[what](intact)
    rewritten(run, intact, file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    error_line(run, drawn, file, line)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"layers_to_patch": [0, 1, 2]}, "not among the model's 0-1"),
        ({"layers_to_patch": [1, 0]}, "each once and in order"),
        ({"main": False}, "which has another name"),
        ({"kind": "semantic"}, "lacks max_pairs_semantic"),
        ({"swept": ["logits_base"]}, "swept has a name that is none of its options"),
        ({"swept": ["k"]}, "swept has a name that is none of its options"),
        ({"options": {"a b": [1]}, "swept": ["a b"]}, "swept has a name that is none of its options"),
    ],
)
def test_settings_that_contradict_the_configuration_are_errors(run, intact, drawn, settings, why):
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(settings))
    assert why in error_line(run, drawn, "patching_config.json")


@pytest.mark.parametrize("token_ids", [[1, 2], [1, 2, 3, 4, 4], [1, 2, 3, 4, 5, 6]])
def test_tokens_that_are_not_one_for_each_label_are_an_error(run, intact, drawn, token_ids):
    change(run, "patching_config.json", lambda config: config["labels"].update(token_ids=token_ids))
    assert "labels.token_ids does not have one token for each label" in error_line(run, drawn, "patching_config.json")


def test_two_pairs_of_one_clip_have_its_own_logits(tmp_path, drawn):
    """A's and B's unpatched logits are the same in all records of a clip, but for the arithmetic's noise."""
    run = make_run(tmp_path / "run", n_pairs=40, n_layers=1)
    rows = rows_of(run)
    clip, numbers = next((c, n) for c, n in _places(rows).items() if len(n) > 1)
    for by, is_error in ((1e-4, False), (0.1, True)):
        changed = copy.deepcopy(rows)
        for side, logits in (("a", "logits_base"), ("b", "logits_donor")):
            row = changed[numbers[-1]]
            if row[f"clip_{side}"] == clip:
                label = next(label for label in row[logits] if row[logits][label] == 0 and label != row["target"])
                row[logits][label] += by
        text = "".join(json.dumps(row) + "\n" for row in changed)
        (run / "patching_records_prosody.jsonl").write_text(text, encoding="utf-8")
        change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(engine_tolerance=1e-3))
        if is_error:
            line = error_line(run, [], "patching_records_prosody.jsonl", numbers[-1] + 1)
            assert "other unpatched logits than a line before" in line
        else:
            assert report(run)[0] == 0


def _places(rows):
    places = {}
    for number, row in enumerate(rows):
        for clip in {row["clip_a"], row["clip_b"]}:
            places.setdefault(clip, []).append(number)
    return places
