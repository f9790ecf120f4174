"""One stored experiment: its settings, pairs and records, which must agree with each other.

    stored = read_experiment(run, config, "prosody")
    stored.columns["flip_to_target"], stored.failed, stored.n_measured

Each pair of the list has every row once, in order, or is listed as failed; `store.table` checks the rows. Raises
`UserError` with file, line, what is wrong and the way out. Every command that shows, compares or resumes a run uses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from voicepatch.errors import UserError
from voicepatch.files import CONFIG
from voicepatch.store.reading import COMPLETE, MOVE_AWAY, OVERWRITE, hash_of, line_error, read_rows
from voicepatch.text import escape
from voicepatch.types.record import DOSE, FailedPair, PairRow, Record, pair_row_type

if TYPE_CHECKING:
    from voicepatch.store.table import Columns


class ChangedFiles(UserError):
    """Files of a finished experiment agree with each other, and are not those that it wrote."""


@dataclass(frozen=True)
class StoredExperiment:
    """One experiment: `columns` are those of its records, in their order, and empty while there is none.

    The logits are [rows, labels], in the order of the task's labels; every other column is [rows]. `failed` is
    pair_id → reason, in the order of the list. Of an unfinished experiment the records are those of the whole pairs.
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


def files_hash(run: Path, name: str) -> str:
    """sha256 over the pair list, the records and the failed pairs of an experiment, as far as they are there."""
    return hash_of(files_of(run, name))


def read_experiment(run: Path, config: Mapping[str, Any], name: str) -> StoredExperiment:
    """One experiment of a run; `UserError` where its files are damaged or contradict each other."""
    from voicepatch.store.table import read_records  # needs numpy, which help does not wait for

    settings = config["experiments"][name]
    wrong = _wrong_settings(config, name, settings)
    if wrong:
        raise UserError(f"{run / CONFIG}: experiment {name}: {wrong}; {OVERWRITE}")
    _, records_file, failed_file = files_of(run, name)
    pairs = read_pair_list(run, config, name)
    failed = {row.pair_id: row.reason for row in _checked_failures(run, name, settings, pairs)}
    measured = [pair for pair in pairs if pair.pair_id not in failed]
    finished = settings["finished"]
    if finished and measured and not records_file.exists():
        raise UserError(f"{records_file}: is not there, and {failed_file.name} does not list all pairs; {COMPLETE}")
    columns, error = read_records(records_file, _labels(config), settings, measured, finished)
    if error:
        raise error
    if finished and settings.get("files_sha256", "") not in ("", files_hash(run, name)):
        what = "this file, the pair list or the failed pairs were changed after the experiment had finished"
        raise ChangedFiles(f"{records_file}: {what}; {OVERWRITE}")
    n_measured = len(set(columns["pair_id"])) if columns else 0
    return StoredExperiment(name, settings, pairs, failed, columns, n_measured)


def read_pair_list(run: Path, config: Mapping[str, Any], name: str) -> list[PairRow]:
    """The rows of a pair list, which is not empty, and agrees with itself and with the experiment's settings."""
    path, settings = files_of(run, name)[0], config["experiments"][name]
    pairs: dict[str, PairRow] = {}
    clips: dict[str, tuple[int, dict[str, str | None]]] = {}  # the first line of each, and what it gives of the clip
    found: set[tuple[str, str]] = set()  # A and B of each pair
    n_pairs, kind = settings.get("n_pairs"), settings["kind"]
    for number, pair in read_rows(path, row_type_of(config), OVERWRITE):
        wrong = _wrong_clip(pair, number, clips) or _wrong_pair(pair, kind, settings["main"])
        if pair.pair_id in pairs:
            wrong = f"gives pair {escape(pair.pair_id)} a second time"
        elif settings["main"] and (pair.clip_a, pair.clip_b) in found:
            wrong = f"gives clips {escape(pair.clip_a)} and {escape(pair.clip_b)} a second time"
        if wrong:
            raise line_error(path, number, wrong, OVERWRITE)
        pairs[pair.pair_id] = pair
        found.add((pair.clip_a, pair.clip_b))
    if not pairs:
        raise UserError(f"{path}: {'holds no pair' if path.exists() else 'is not there'}; {OVERWRITE}")
    if n_pairs not in (None, len(pairs)):
        raise line_error(path, len(pairs), f"is the last, where {CONFIG} says {n_pairs} {kind} pairs", OVERWRITE)
    return list(pairs.values())


def count_done(run: Path, config: Mapping[str, Any], name: str) -> tuple[int, int]:
    """How many pairs at the head of the list are whole or have failed, and how many lines of records are theirs.

    Nothing counts from the first line on that is wrong.
    """
    from voicepatch.store.table import read_records

    settings, pairs = config["experiments"][name], read_pair_list(run, config, name)
    _, records_file, failed_file = files_of(run, name)
    failed = {row.pair_id for row in read_failures(failed_file, finished=False)}
    measured = [number for number, pair in enumerate(pairs) if pair.pair_id not in failed]
    listed = [pairs[number] for number in measured]
    columns, _ = read_records(records_file, _labels(config), settings, listed, complete=False)
    n_lines = len(columns["layer"]) if columns else 0
    n_whole = len(set(columns["pair_id"])) if columns else 0
    return measured[n_whole] if n_whole < len(measured) else len(pairs), n_lines


def read_failures(path: Path, finished: bool) -> list[FailedPair]:
    """The rows of a list of failed pairs; none where there is no such file."""
    return [row for _, row in read_rows(path, FailedPair, MOVE_AWAY, complete=finished)]


def row_type_of(config: Mapping[str, Any]) -> Any:
    """The type of a line of a pair list of this run."""
    return pair_row_type(_labels(config), tuple(config["data"].get("columns", ())))


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(config["task"]["labels"])


def _checked_failures(run: Path, name: str, settings: Mapping[str, Any], pairs: Sequence[PairRow]) -> list[FailedPair]:
    pairs_file, _, path = files_of(run, name)
    rows = read_failures(path, settings["finished"])
    known, found = {pair.pair_id for pair in pairs}, set()
    for number, row in enumerate(rows, start=1):
        if row.pair_id not in known:
            what = f"names pair {escape(row.pair_id)}, which {pairs_file.name} lacks"
            raise line_error(path, number, what, MOVE_AWAY)
        if row.pair_id in found:
            raise line_error(path, number, f"names pair {escape(row.pair_id)} a second time", MOVE_AWAY)
        found.add(row.pair_id)
    n_failed = settings.get("n_failed", len(rows)) if settings["finished"] else len(rows)
    if n_failed != len(rows):
        raise UserError(f"{path}: lists {len(rows)} pairs, where {CONFIG} says {n_failed}; {OVERWRITE}")
    return rows


def _wrong_pair(pair: PairRow, kind: str, is_main: bool) -> str:
    """What contradicts the experiment's settings; "" where nothing does."""
    if pair.kind != kind:
        return f"is a {pair.kind} pair, where {CONFIG} says {kind}"
    own = pair.prosody_label_b if kind == "prosody" else pair.semantic_label_b
    if is_main and pair.target != own:
        return f"has the target {pair.target}, where B's {kind} label is {own}"
    same, different = ("text_id", "prosody_label") if kind == "prosody" else ("prosody_label", "semantic_label")
    if is_main and getattr(pair, f"{same}_a") != getattr(pair, f"{same}_b"):
        return f"has two clips with different {same}, which no {kind} pair has"
    if is_main and getattr(pair, f"{different}_a") == own:
        return f"has two clips with the same {different}, which no {kind} pair has"
    return ""


def _wrong_clip(pair: PairRow, number: int, clips: dict[str, tuple[int, dict[str, str | None]]]) -> str:
    """What contradicts an earlier line about a clip, and add the pair's clips to `clips`; "" where nothing does."""
    row = to_builtins(pair)
    for side in "ab":
        clip = row[f"clip_{side}"]
        found = {key.removesuffix(f"_{side}"): value for key, value in row.items() if key.endswith(f"_{side}")}
        line, before = clips.setdefault(clip, (number, found))
        for column, value in found.items():
            if value != before[column]:
                return f"gives clip {escape(clip)} {column} {value!r}, where line {line} gives {before[column]!r}"
    return ""


def _wrong_settings(config: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> str:
    """What in an experiment's settings contradicts the rest of the configuration; "" where nothing does."""
    kind, layers, swept, n_layers = (
        settings["kind"],
        settings["layers_to_patch"],
        settings["swept"],
        config["model"]["n_layers"],
    )
    if f"max_pairs_{kind}" not in settings:
        return f"lacks max_pairs_{kind}"
    if settings["main"] != (name == kind):
        return f"is of {settings['intervention']} with {kind} pairs, which has another name"
    if layers != sorted(set(layers)) or layers[-1] >= n_layers:
        return f"layers_to_patch are not among the model's 0-{n_layers - 1}, each once and in order"
    options = settings["options"].keys() - set(Record.__struct_fields__)
    if len(set(swept)) < len(swept) or not {DOSE, *options}.issuperset(swept) or not all(map(str.isidentifier, swept)):
        return f"swept has a name that is none of its options: {escape(', '.join(swept))}"
    for option, values in {**settings["options"], DOSE: settings[DOSE]}.items():
        if option in swept and (not isinstance(values, list) or len(set(map(repr, values))) < len(values)):
            return f"{option} is swept, and is no list of different values"
    if isinstance(settings[DOSE], list) and DOSE not in swept:
        return f"{DOSE} has several values, and swept does not name it"
    return ""
