"""The records of an experiment as columns, checked as a whole.

    columns, error = read_records(path, labels, settings, pairs)
    columns["logits_patch"]                   # [rows, labels]; every other column is [rows]

The pair list and the settings say which rows there are, and in which order: each pair, each combination of the swept
values, each layer. The facts of a pair are those of the pair list, a clip has one length and the same unpatched logits
everywhere, and answers, flips and differences follow from the logits.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from voicepatch.errors import UserError
from voicepatch.store.reading import COMPLETE, line_error, read_rows
from voicepatch.text import escape, short_repr, value_text
from voicepatch.types.record import APPROXIMATE, DOSE, LOGITS, OF_PAIR, PairRow, Record, record_type
from voicepatch.types.task import DONOR_TASK

Columns = dict[str, np.ndarray]

BLOCK = 1000  # rows that are held as objects at a time
SAME_IN_PAIR = ("logits_base", "logits_donor", "pred_base", "eligible", "len_a", "len_b")
ROUNDING = 2e-6  # logits are written with six decimals
TOLERANCE_AT = 10.0  # the size of logits up to which the engine's tolerance holds; for larger ones it grows with them
_TYPES = {bool: np.bool_, int: np.int64, float: np.float64}


def read_records(
    path: Path,
    labels: tuple[str, ...],
    settings: Mapping[str, Any],
    pairs: Sequence[PairRow],
    complete: bool = True,
) -> tuple[Columns, UserError | None]:
    """The records of `pairs`, and the error to raise for the first line that is wrong, or None.

    The columns hold whole pairs, all of them before that line. Of records that are not complete, rows may be missing at
    the end.
    """
    cells, swept = _cells(settings), settings["swept"]
    declared = record_type(labels, tuple(swept), settings[APPROXIMATE])
    columns, error = _columns_of_file(path, declared, labels, complete)
    n_rows, n_expected = len(columns.get("layer", ())), len(pairs) * len(cells)
    n_known = min(n_rows, n_expected)
    known = {name: values[:n_known] for name, values in columns.items()}
    expected = _expected(settings, pairs, cells, n_known)
    row, wrong = n_rows, ""
    if n_known:
        row, wrong = _first_fault(known, expected, labels, settings, len(cells))
    if not wrong and n_rows > n_expected:
        row, wrong = n_expected, "comes after the last record that the pair list has"
    if not wrong and error is None and complete and n_rows < n_expected:
        place = _place(_expected(settings, pairs, cells, n_rows + 1), n_rows, swept)
        row, wrong = n_rows, f"is missing; {place} is expected"
    if wrong:
        error = line_error(path, row + 1, wrong, COMPLETE)
    n_whole = min(row, n_known) // len(cells) * len(cells)
    return {name: values[:n_whole] for name, values in (known | expected).items() if n_whole}, error


def _cells(settings: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of each pair in their order: the values of the swept options, then the layer."""
    values = [settings[DOSE] if name == DOSE else settings["options"][name] for name in settings["swept"]]
    return list(product(*values, settings["layers_to_patch"]))


def _expected(settings: Mapping[str, Any], pairs: Sequence[PairRow], cells: Sequence[tuple], n_rows: int) -> Columns:
    """What the first `n_rows` rows hold of the pair list and the settings."""
    pair, cell = np.divmod(np.arange(n_rows), len(cells))
    of_pairs = {name: np.array([getattr(row, name) for row in pairs], object) for name in ("pair_id", *OF_PAIR)}
    of_cells = dict(zip((*settings["swept"], "layer"), map(_array, zip(*cells, strict=True)), strict=True))
    if DOSE not in of_cells:
        of_cells[DOSE] = np.full(len(cells), settings[DOSE])
    expected = {name: values[pair] for name, values in of_pairs.items()}
    return expected | {name: values[cell] for name, values in of_cells.items()}


def _first_fault(
    columns: Columns, expected: Columns, labels: Sequence[str], settings: Mapping[str, Any], n_cells: int
) -> tuple[int, str]:
    """The first row that is wrong and what is wrong with it; the number of rows and "" where none is."""
    swept = settings["swept"]
    elsewhere = np.any([columns[name] != expected[name] for name in ("pair_id", "layer", DOSE, *swept)], axis=0)
    faults = [(elsewhere, "")]
    faults += [(columns[name] != expected[name], f"{name} is not that of the pair list") for name in OF_PAIR]
    if DONOR_TASK in settings["options"]:  # B is asked another question, so its logits are not those of the clip as A
        expected = expected | {"clip_b": np.array([f"\0{name}" for name in expected["clip_b"]], object)}
    faults += _facts(columns, expected, 2 * settings["engine_tolerance"], n_cells)
    faults += [(~holds, f"{name} contradicts the logits") for name, holds in _follows(columns, labels).items()]
    if APPROXIMATE in columns:
        faults.append((~columns[APPROXIMATE], f"{APPROXIMATE} is false, where the experiment's logits are estimates"))
    found = [(int(rows.argmax()), wrong) for rows, wrong in faults if rows.any()]
    row, wrong = min(found, key=lambda fault: fault[0], default=(len(elsewhere), ""))
    if row < len(elsewhere) and elsewhere[row]:
        wrong = f"is of {_place(columns, row, swept)}, where {_place(expected, row, swept)} is expected"
    return row, wrong


def _place(columns: Columns, row: int, swept: Sequence[str]) -> str:
    """A row's pair, layer and values, such as "pair p0, layer 1, head 3, alpha 0.5"."""
    options = [name for name in swept if name != DOSE]
    values = [columns[name].tolist()[row] for name in ("layer", *options, DOSE)]
    texts = [value_text(value) if isinstance(value, float) else short_repr(value) for value in values]
    named = [f"{name} {text}" for name, text in zip(("layer", *options, "alpha"), texts, strict=True)]
    return ", ".join([f"pair {escape(columns['pair_id'][row])}", *named])


def _facts(columns: Columns, expected: Columns, tolerance: float, n_cells: int) -> Iterator[tuple[np.ndarray, str]]:
    """Rows in which A's and B's own facts differ from those in another row of the pair or of the clip."""
    first_row = np.arange(len(expected["layer"])) // n_cells * n_cells
    for name in SAME_IN_PAIR:
        differs = columns[name] != columns[name][first_row]
        yield differs.reshape(len(differs), -1).any(1), f"{name} differs from that of the pair's first row"
    starts = np.unique(first_row)
    names, lengths, logits = (
        np.stack([a[starts], b[starts]], 1).reshape(2 * len(starts), *a.shape[1:])  # of A and B, pair by pair
        for a, b in (
            (expected["clip_a"], expected["clip_b"]),
            (columns["len_a"], columns["len_b"]),
            (columns["logits_base"], columns["logits_donor"]),
        )
    )
    _, first, clip = np.unique(names, return_index=True, return_inverse=True)
    tolerance = tolerance * np.maximum(1, np.abs(logits).max(1) / TOLERANCE_AT)
    differs = (lengths != lengths[first[clip]]) | (np.abs(logits - logits[first[clip]]).max(1) > tolerance)
    rows = np.isin(np.arange(len(first_row)), starts[differs.reshape(-1, 2).any(1)])
    yield rows, "gives a clip another length or other unpatched logits than a line before"


def _follows(columns: Columns, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """For each column that follows from the logits and the target, in which rows it does."""
    number_of = {label: number for number, label in enumerate(labels)}
    target, pred_base, pred_patch = (
        np.array([number_of[label] for label in columns[name]]) for name in ("target", "pred_base", "pred_patch")
    )
    rows, base, patch = np.arange(len(target)), columns["logits_base"], columns["logits_patch"]
    difference = patch[rows, target] - base[rows, target]
    return {
        "pred_base": base[rows, pred_base] == base.max(1),
        "pred_patch": patch[rows, pred_patch] == patch.max(1),
        "eligible": columns["eligible"] == (pred_base != target),
        "flip_to_target": columns["flip_to_target"] == (pred_patch == target),
        "flip_from_base": columns["flip_from_base"] == (pred_patch != pred_base),
        "delta_logit_target": np.abs(columns["delta_logit_target"] - difference) <= ROUNDING,
    }


def _columns_of_file(
    path: Path, declared: Any, labels: Sequence[str], complete: bool
) -> tuple[Columns, UserError | None]:
    """The rows up to the first that is not as declared, and the error of that one; no column where there is no row."""
    blocks: list[Columns] = []
    rows: list[Record] = []
    error = None
    try:
        for _, row in read_rows(path, declared, COMPLETE, complete):
            rows.append(row)
            if len(rows) == BLOCK:
                blocks.append(_columns(rows, labels))
                rows = []
    except UserError as caught:
        error = caught
    blocks += [_columns(rows, labels)] if rows else []
    names = list(blocks[0]) if blocks else []
    return {name: np.concatenate([block.pop(name) for block in blocks]) for name in names}, error


def _columns(rows: Sequence[Record], labels: Sequence[str]) -> Columns:
    columns, names = {}, rows[0].__struct_fields__
    for name, values in zip(names, zip(*map(msgspec.structs.astuple, rows), strict=True), strict=True):
        if name in LOGITS:
            numbers = chain.from_iterable(map(msgspec.structs.astuple, values))
            columns[name] = np.fromiter(numbers, float, len(rows) * len(labels)).reshape(-1, len(labels))
        else:
            columns[name] = _array(values)
    return columns


def _array(values: Sequence[Any]) -> np.ndarray:
    """Numbers as such, each text held once, and any other values as they are."""
    types = set(map(type, values))
    only = types.pop() if len(types) == 1 else object
    if only in _TYPES:
        try:
            return np.array(values, _TYPES[only])
        except OverflowError:  # a swept value may be of any size
            pass
    array = np.empty(len(values), object)
    array[:] = list(map(sys.intern, values)) if only is str else values
    return array
