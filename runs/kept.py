"""The pairs and records of one experiment of a run, which hold together or are refused.

    kept = read_experiment(run, config, "prosody")
    kept.columns["flip_to_target"], kept.failed, kept.n_measured

Each pair of the list has every row, a layer and a value of each swept option, once, or is listed as failed; what a row
says of its pair is what the pair list says; answers, flips and differences follow from the logits. Raises `UserError`
with file, line, what is wrong and the way out. Every command that shows, compares or goes on with a run asks this.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import UserError
from files import CONFIG
from registry.catalogue import MAIN
from runs.reader import ANEW, COMPLETE, MOVE_AWAY, line_error, read_rows
from runs.row_types import DOSE, FailedPair, PairRow, Record

if TYPE_CHECKING:
    from runs.record_blocks import Block, Columns

# Controls that run on the main experiment's recipients, in their order.
ON_ITS_RECIPIENTS = ("self", "random", "non-audio", "same-label", "suffix")
SAMPLING = ("pair_sampling_seed", "same_speaker", "both_directions", "max_pairs_prosody", "max_pairs_semantic")


@dataclass(frozen=True)
class Kept:
    """One experiment: `columns` are those of its records, in the records' order, and empty while there is none.

    The logits are [rows, labels], in the order of `models.labels`; every other column is [rows]. `failed` is pair_id →
    reason, in the order of the list. Of an unfinished experiment the records are those of the pairs that are whole.
    """

    name: str
    settings: dict[str, Any]
    pairs: list[PairRow]
    failed: dict[str, str]
    columns: "Columns"
    n_measured: int


def files_of(run: Path, name: str) -> tuple[Path, Path, Path]:
    """The pair list, the records and the failed pairs of an experiment."""
    stems = ("pair_list", "patching_records", "failed_pairs")
    pairs, records, failed = (run / f"{stem}_{name}.jsonl" for stem in stems)
    return pairs, records, failed


def read_experiment(run: Path, config: Mapping[str, Any], name: str, columns: bool = True) -> Kept:
    """One experiment of a run; `UserError` where its files are damaged or contradict each other.

    Without `columns` the records are checked and not held.
    """
    settings = config["experiments"][name]
    wrong = _wrong_settings(config, name, settings)
    if wrong:
        raise UserError(f"{run / CONFIG}: experiment {name}: {wrong}; {ANEW}")
    pairs_file, records_file, failed_file = files_of(run, name)
    pairs = read_pair_list(pairs_file, settings)
    _check_recipients(run, config, name, pairs)
    failed = _failures(failed_file, pairs_file, pairs, settings)
    measured: set[int] = set()
    blocks = []
    for block in _blocks(records_file, settings, pairs, settings["finished"]):
        measured.update(block.pairs.tolist())
        blocks += [block.columns] if columns else []
    for number, pair in enumerate(pairs) if settings["finished"] else ():
        if number not in measured and pair.pair_id not in failed:
            what = f"has no record of pair {_shown(pair.pair_id)} (line {number + 1} of {pairs_file.name})"
            what = what if records_file.exists() else "is not there"
            raise UserError(f"{records_file}: {what}, and {failed_file.name} does not list it; {COMPLETE}")
    measured_ids = {pairs[number].pair_id for number in measured}
    lost = {pair.pair_id: failed[pair.pair_id] for pair in pairs if pair.pair_id in failed.keys() - measured_ids}
    return Kept(name, settings, pairs, lost, _joined(blocks), len(measured))


def read_pair_list(path: Path, settings: Mapping[str, Any]) -> list[PairRow]:
    """The rows of a pair list, which is not empty, and agrees with itself and with the experiment's settings."""
    pairs: dict[str, PairRow] = {}
    clips: dict[str, tuple] = {}
    n_pairs, kind = settings.get("n_pairs"), settings["kind"]
    for number, pair in read_rows(path, PairRow, ANEW):
        wrong = _wrong_pair(pair, settings, clips)
        if pair.pair_id in pairs:
            wrong = f"gives pair {_shown(pair.pair_id)} a second time"
        if wrong:
            raise line_error(path, number, wrong, ANEW)
        pairs[pair.pair_id] = pair
    if not pairs:
        raise UserError(f"{path}: {'holds no pair' if path.exists() else 'is not there'}; {ANEW}")
    if n_pairs not in (None, len(pairs)):
        raise line_error(path, len(pairs), f"is the last, where {CONFIG} says {n_pairs} {kind} pairs", ANEW)
    return list(pairs.values())


def whole_pairs(
    run: Path, name: str, settings: Mapping[str, Any], pairs: list[PairRow], failed: Collection[str]
) -> tuple[int, int]:
    """How many pairs at the head of the list are whole or have failed, and how many lines of records are theirs.

    What follows the first line that does not hold together is not trusted.
    """
    _, records_file, _ = files_of(run, name)
    waiting = deque(number for number, pair in enumerate(pairs) if pair.pair_id not in failed)
    n_lines = 0
    with suppress(UserError):
        for block in _blocks(records_file, settings, pairs, ends=False):
            n_rows = len(block.columns["layer"]) // len(block.pairs)
            for number in block.pairs.tolist():
                if not waiting or number != waiting[0]:
                    return (waiting[0] if waiting else len(pairs)), n_lines
                waiting.popleft()
                n_lines += n_rows
    return (waiting[0] if waiting else len(pairs)), n_lines


def _blocks(path: Path, settings: Mapping[str, Any], pairs: list[PairRow], ends: bool) -> "Iterator[Block]":
    from runs.record_blocks import read_records  # needs numpy, for which help does not wait

    return read_records(path, settings, pairs, ends)


def _check_recipients(run: Path, config: Mapping[str, Any], name: str, pairs: list[PairRow]) -> None:
    """A control whose pairs were drawn as the main experiment's has its recipients."""
    settings = config["experiments"][name]
    kind = settings["kind"]
    main = config["experiments"].get(kind)
    if settings["intervention"] not in ON_ITS_RECIPIENTS or main is None:
        return
    if any(settings.get(key) != main.get(key) for key in SAMPLING):
        return
    mine, _, _ = files_of(run, name)
    its, _, _ = files_of(run, kind)
    try:
        recipients = [pair.clip_a for pair in read_pair_list(its, main)]
    except UserError:
        return  # it is refused itself
    for number, (pair, recipient) in enumerate(zip_longest(pairs, recipients), start=1):
        if pair is None or pair.clip_a != recipient:
            has = f"has the recipient {_shown(pair.clip_a)}" if pair else "is not there"
            raise line_error(mine, number, f"{has}, where {its.name} has {_shown(str(recipient))}", ANEW)


def _joined(blocks: "list[Columns]") -> "Columns":
    if not blocks:
        return {}
    from runs.record_blocks import joined

    return joined(blocks)


def _failures(path: Path, pairs_file: Path, pairs: list[PairRow], settings: Mapping[str, Any]) -> dict[str, str]:
    known = {pair.pair_id for pair in pairs}
    found: dict[str, str] = {}
    for number, row in read_failures(path, settings["finished"]):
        if row.pair_id not in known:
            what = f"names pair {_shown(row.pair_id)}, which {pairs_file.name} lacks"
            raise line_error(path, number, what, MOVE_AWAY)
        if row.pair_id in found:
            raise line_error(path, number, f"names pair {_shown(row.pair_id)} a second time", MOVE_AWAY)
        found[row.pair_id] = row.reason
    n_failed = settings.get("n_failed", len(found)) if settings["finished"] else len(found)
    if n_failed != len(found):
        raise UserError(f"{path}: lists {len(found)} pairs, where {CONFIG} says {n_failed}; {ANEW}")
    return found


def read_failures(path: Path, finished: bool) -> Iterator[tuple[int, FailedPair]]:
    """The lines of a list of failed pairs; none where there is no such file."""
    return read_rows(path, FailedPair, MOVE_AWAY, ends=finished)


def _wrong_pair(pair: PairRow, settings: Mapping[str, Any], clips: dict[str, tuple]) -> str:
    if pair.kind != settings["kind"]:
        return f"is a {pair.kind} pair, where {CONFIG} says {settings['kind']}"
    own = pair.prosody_label_b if pair.kind == "prosody" else pair.semantic_label_b
    if settings["intervention"] == MAIN and pair.target != own:
        return f"has the target {pair.target}, where B's {pair.kind} label is {own}"
    of_a = (pair.text_id_a, pair.semantic_label_a, pair.prosody_label_a, pair.speaker_a, pair.text_type_a)
    of_b = (pair.text_id_b, pair.semantic_label_b, pair.prosody_label_b, pair.speaker_b, pair.text_type_b)
    for clip, facts in ((pair.clip_a, of_a), (pair.clip_b, of_b)):
        if clips.setdefault(clip, facts) != facts:
            return f"gives clip {_shown(clip)} another text, label or speaker than a line before"
    return ""


def _wrong_settings(config: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> str:
    """What in an experiment's settings contradicts the rest of the configuration; "" where nothing does."""
    kind = settings["kind"]
    if f"max_pairs_{kind}" not in settings:
        return f"lacks max_pairs_{kind}"
    if (settings["intervention"] == MAIN) != (name == kind):
        return f"is of {settings['intervention']} with {kind} pairs, which has another name"
    layers, swept, n_layers = settings["layers_to_patch"], settings.get("swept", ()), config["model"]["n_layers"]
    if layers != sorted(set(layers)) or layers[-1] >= n_layers:
        return f"layers_to_patch are not among the model's 0-{n_layers - 1}, each once and in order"
    known = {DOSE, *settings["options"]} - (set(Record.__struct_fields__) - {DOSE})
    if len(set(swept)) < len(swept) or not known.issuperset(swept) or not all(map(str.isidentifier, swept)):
        return f"swept names what is none of its options: {_shown(', '.join(swept))}"
    return ""


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
