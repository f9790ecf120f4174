"""The records of an experiment as columns, read and checked a block at a time.

    for block in read_records(path, settings, pairs):
        block.columns["logits_patch"]      # [rows, labels]; every other column is [rows]

A block holds whole pairs. Within a pair there is one row for each layer and value of each swept option; the facts of
the pair are those of the pair list, what is A's and B's own is the same in all of its rows, and the answers, flips and
differences follow from the logits. The file is never in memory as a whole.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from errors import UserError
from models.labels import LABELS
from runs.columns import value_text
from runs.reader import COMPLETE, line_error, read_blocks
from runs.row_types import DOSE, PairRow, Record, record_type

Columns = dict[str, np.ndarray]
Fault = tuple[np.ndarray, Callable[[int], str]]  # which rows are wrong, and what to say of one of them

LOGITS = ("logits_base", "logits_patch", "logits_donor")
OF_PAIR = ("clip_a", "clip_b", "target", "semantic_label_b", "prosody_label_b")
OF_FIRST = ("logits_base", "logits_donor", "pred_base", "eligible", "len_a", "len_b")
ROUNDING = 2e-6  # logits are written with six decimals
TOLERANCE_AT = 10.0  # the size of logits up to which a tolerance is what it says; for larger ones it grows with them
_NUMBER_OF = {label: number for number, label in enumerate(LABELS)}
_TYPES = {bool: np.bool_, int: np.int64, float: np.float64}


@dataclass(frozen=True)
class Block:
    """Consecutive records of whole pairs.

    `pairs` are the numbers of the pairs in the list, in the records' order; `last_line` is the line of the last record.
    """

    columns: Columns
    pairs: np.ndarray
    last_line: int


def read_records(
    path: Path, settings: Mapping[str, Any], pairs: Sequence[PairRow], ends: bool = True
) -> Iterator[Block]:
    """The records of an experiment that was begun with `settings` on `pairs`.

    Raises `UserError`, after the whole pairs before it, at the first line that is wrong. Without `ends` the file may
    still grow, and a last pair that lacks rows is left out.
    """
    check, rows, number, torn = _Check(settings, pairs), [], 1, None
    blocks = read_blocks(path, record_type(tuple(settings.get("swept", ()))), COMPLETE, ends)
    while True:
        try:
            _, more = next(blocks)
        except StopIteration:
            break
        except UserError as error:
            torn = error
            break
        rows += more
        begun = _start_of_last_pair(rows)  # more of its rows may follow
        if begun:
            yield from check.whole_pairs(path, number, rows[:begun], followed=True)
            rows, number = rows[begun:], number + begun
    if rows:
        yield from check.whole_pairs(path, number, rows, ends=ends and torn is None)
    if torn:
        raise torn


def joined(blocks: list[Columns]) -> Columns:
    """The columns of consecutive blocks, without keys that no line has.

    The blocks are emptied, so that nothing is there twice.
    """
    columns = {name: np.concatenate([block.pop(name) for block in blocks]) for name in list(blocks[0])}
    return {name: values for name, values in columns.items() if values[0] is not msgspec.UNSET}


def _start_of_last_pair(rows: Sequence[Record]) -> int:
    number = len(rows)
    while number and rows[number - 1].pair_id == rows[-1].pair_id:
        number -= 1
    return number


class _Check:
    """Checks rows that begin with a pair's first row; holds what it has seen of each pair and clip."""

    def __init__(self, settings: Mapping[str, Any], pairs: Sequence[PairRow]):
        self._names = [pair.pair_id for pair in pairs]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._facts = {name: np.array([getattr(pair, name) for pair in pairs], object) for name in OF_PAIR}
        self._seen = np.zeros(len(pairs), bool)
        clips = {clip: number for number, clip in enumerate({c: 0 for p in pairs for c in (p.clip_a, p.clip_b)})}
        self._clips = np.array([[clips[pair.clip_a], clips[pair.clip_b]] for pair in pairs])
        self._clip_line = np.zeros(len(clips), int)  # where a clip was first, 0 for nowhere
        self._clip_length = np.zeros(len(clips), int)
        self._clip_logits = np.zeros((len(clips), len(LABELS)))
        self._tolerance = 2 * settings.get("engine_tolerance", 1.0)  # between two computations of one clip's logits
        self._layers = np.array(settings["layers_to_patch"])
        swept = settings.get("swept")
        # A run of the version before does not say whether the dose is swept: the first pair's doses are every pair's.
        self._swept = [DOSE] if swept is None else list(swept)
        self._dose = None if swept is None or DOSE in swept else settings[DOSE]
        self._values: list[dict[Any, int]] | None = None
        if swept is not None:
            chosen = [settings[DOSE] if name == DOSE else settings["options"].get(name) for name in swept]
            self._values = [_numbered(values if isinstance(values, list) else [values]) for values in chosen]
        self._lacks: dict[str, bool] = {}  # whether the first line lacks a key that older versions did not write

    def whole_pairs(
        self, path: Path, number: int, rows: list[Record], followed: bool = False, ends: bool = False
    ) -> Iterator[Block]:
        """The whole pairs of rows of which the first is line `number`, up to the first that is wrong, which is raised.

        `followed` says that a row of another pair comes next, `ends` that nothing does.
        """
        columns = _columns(rows)
        pairs = np.array([self._numbers.get(name, -1) for name in columns["pair_id"]])
        starts = np.flatnonzero(np.r_[True, pairs[1:] != pairs[:-1]])
        if self._values is None:
            self._values = [_numbered(columns[DOSE][: _end(starts, 0, len(rows))].tolist())]
        n_cells = len(self._layers) * int(np.prod([len(known) for known in self._values]))
        wrong, what = self._first_wrong(number, columns, pairs, starts, n_cells)
        kept = starts[starts < wrong]
        # Every row before the first wrong one is another cell of its pair, so their number says whether it is whole.
        last_size = wrong - kept[-1] if len(kept) else 0
        is_whole = last_size == n_cells
        if not what and not is_whole and (followed or ends):
            lacks = self._missing(columns, pairs, kept[-1], wrong)
            what, wrong = (f"begins another pair, but {lacks}", wrong) if followed else (lacks, wrong - 1)
        end = int(kept[-1] + n_cells if is_whole else kept[-1]) if len(kept) else 0
        if end:
            self._seen[pairs[:end]] = True
            yield Block(
                {name: values[:end] for name, values in columns.items()}, pairs[starts[starts < end]], number + end - 1
            )
        if what:
            raise line_error(path, number + wrong, what, COMPLETE)

    def _first_wrong(
        self, number: int, columns: Columns, pairs: np.ndarray, starts: np.ndarray, n_cells: int
    ) -> tuple[int, str]:
        """The first wrong row and what is wrong with it; the number of rows and "" where none is."""
        n = len(pairs)
        faults = [
            *self._begins(number, columns, pairs, starts, n_cells),
            *self._in_pair(columns, pairs, starts),
            *self._cells(columns, starts),
            *_in_itself(columns),
            *self._newer(columns),
        ]
        found = [(int(rows.argmax()), say) for rows, say in faults if rows.any()]
        row, say = min(found, key=lambda fault: fault[0], default=(n, None))
        return row, say(row) if say else ""

    def _begins(
        self, number: int, columns: Columns, pairs: np.ndarray, starts: np.ndarray, n_cells: int
    ) -> Iterator[Fault]:
        n, known = len(pairs), pairs[starts] >= 0

        def at_starts(bad: np.ndarray) -> np.ndarray:
            rows = np.zeros(n, bool)
            rows[starts[bad]] = True
            return rows

        def name(row: int) -> str:
            return _short(columns["pair_id"][row])

        short = np.r_[False, np.diff(starts) != n_cells]
        yield (
            at_starts(short),
            lambda row: f"begins another pair, but {self._missing(columns, pairs, starts[starts < row][-1], row)}",
        )
        _, first = np.unique(pairs[starts], return_index=True)
        again = known & self._seen[pairs[starts]]
        again[np.setdiff1d(np.flatnonzero(known), first)] = True
        yield at_starts(again), lambda row: f"gives pair {name(row)} a second time"
        yield at_starts(~known), lambda row: f"is of pair {name(row)}, which the pair list lacks"

        rows = starts[known]
        clips = self._clips[pairs[rows]].ravel()  # A, B, A, B, …
        lengths = np.stack([columns["len_a"][rows], columns["len_b"][rows]], 1).ravel()
        logits = np.stack([columns["logits_base"][rows], columns["logits_donor"][rows]], 1).reshape(-1, len(LABELS))
        new, first = np.unique(clips, return_index=True)
        unseen = self._clip_line[new] == 0
        new, first = new[unseen], first[unseen]
        self._clip_line[new] = number + np.repeat(rows, 2)[first]
        self._clip_length[new], self._clip_logits[new] = lengths[first], logits[first]
        for side in (0, 1):
            mine = clips[side::2]
            its = self._clip_length[mine]
            bad = np.zeros(n, bool)
            bad[rows[lengths[side::2] != its]] = True
            yield bad, lambda row, side=side: self._other_length(columns, pairs, row, side)
            bad = np.zeros(n, bool)
            own = logits[side::2]
            tolerance = self._tolerance * np.maximum(1, np.abs(own).max(1) / TOLERANCE_AT)
            bad[rows[np.abs(own - self._clip_logits[mine]).max(1) > tolerance]] = True
            yield (
                bad,
                lambda row, side=side: (
                    f"gives clip {_short(columns[OF_PAIR[side]][row])} other unpatched logits than line "
                    f"{self._clip_line[self._clips[pairs[row], side]]}"
                ),
            )

    def _other_length(self, columns: Columns, pairs: np.ndarray, row: int, side: int) -> str:
        clip, length = self._clips[pairs[row], side], columns[("len_a", "len_b")[side]][row]
        return (
            f"gives clip {_short(self._facts[OF_PAIR[side]][pairs[row]])} {length} audio positions, where line "
            f"{self._clip_line[clip]} gives {self._clip_length[clip]}"
        )

    def _in_pair(self, columns: Columns, pairs: np.ndarray, starts: np.ndarray) -> Iterator[Fault]:
        for name in OF_PAIR:
            listed = self._facts[name][pairs]
            yield (
                columns[name] != listed,
                lambda row, name=name, listed=listed: (
                    f"{name} is {_short(columns[name][row])}, where the pair list has {_short(listed[row])}"
                ),
            )
        first = np.repeat(starts, np.diff(np.r_[starts, len(pairs)]))
        for name in OF_FIRST:
            differs = columns[name] != columns[name][first]
            differs = differs.any(1) if differs.ndim > 1 else differs
            yield differs, lambda row, name=name: f"{name} is not what the pair's first row has"

    def _cells(self, columns: Columns, starts: np.ndarray) -> Iterator[Fault]:
        n = len(columns["layer"])
        cells, known = self._cell_numbers(columns)
        places = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, n])) * (cells.max() + 1) + cells
        places[~known] = -1 - np.arange(n)[~known]
        again = np.ones(n, bool)
        again[np.unique(places, return_index=True)[1]] = False
        yield again, lambda row: f"gives {self._cell(columns, row)} of its pair a second time"
        if self._dose is not None:
            known &= columns[DOSE] == self._dose

        def not_among(row: int) -> str:
            dose = "" if DOSE in self._swept else f", alpha {value_text(float(columns[DOSE][row]))}"
            return f"{self._cell(columns, row)}{dose} is not among those of the configuration"

        yield ~known, not_among

    def _cell_numbers(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """The number of each row's cell, and whether the configuration has it."""
        cells = np.searchsorted(self._layers, columns["layer"]).clip(max=len(self._layers) - 1)
        known = self._layers[cells] == columns["layer"]
        for name, values in zip(self._swept, self._values, strict=True):
            found = np.array([values.get(_hashable(value), -1) for value in columns[name].tolist()])
            cells, known = cells * len(values) + found, known & (found >= 0)
        return cells, known

    def _newer(self, columns: Columns) -> Iterator[Fault]:
        """A key that older versions did not write is in every line or in none."""
        for name in ("patched_from", "site"):
            values = columns[name]
            lacks = values == msgspec.UNSET if values.dtype == object else np.zeros(len(values), bool)
            first = self._lacks.setdefault(name, bool(lacks[0]))
            has = "has" if first else "lacks"
            yield lacks != first, lambda row, name=name, has=has: f"{has} {name}, unlike line 1"

    def _missing(self, columns: Columns, pairs: np.ndarray, start: int, end: int) -> str:
        """What the pair of some rows lacks."""
        some = {name: values[start:end] for name, values in columns.items()}
        there = set(self._cell_numbers(some)[0].tolist())
        grid = product(self._layers.tolist(), *self._values)
        cell = next(cell for number, cell in enumerate(grid) if number not in there)
        name = _short(columns["pair_id"][start])
        return f"pair {name} ends with {end - start} rows; {self._named(cell)} is missing"

    def _cell(self, columns: Columns, row: int) -> str:
        return self._named([columns[name].tolist()[row] for name in ("layer", *self._swept)])

    def _named(self, cell: Sequence[Any]) -> str:
        names = ["alpha" if name == DOSE else name for name in ("layer", *self._swept)]
        return ", ".join(f"{name} {_short(value)}" for name, value in zip(names, cell, strict=True))


def _in_itself(columns: Columns) -> Iterator[Fault]:
    """What each record says against its own logits."""
    rows = np.arange(len(columns["target"]))
    base, patch = columns["logits_base"], columns["logits_patch"]
    target, pred_base, pred_patch = (
        np.fromiter(map(_NUMBER_OF.__getitem__, columns[name]), np.intp, len(rows))
        for name in ("target", "pred_base", "pred_patch")
    )

    def of(name: str) -> Callable[[int], str]:
        return lambda row: f"{name} {columns[name][row]}"

    def not_largest(which: str) -> Callable[[int], str]:
        return lambda row: (
            f"pred_{which} is {columns[f'pred_{which}'][row]}, whose logit is not the largest of logits_{which}"
        )

    def contradicts(flag: str, one: str, other: str) -> Callable[[int], str]:
        return lambda row: f"{flag} contradicts {of(one)(row)} and {of(other)(row)}"

    yield patch[rows, pred_patch] < patch.max(1), not_largest("patch")
    yield base[rows, pred_base] < base.max(1), not_largest("base")
    yield columns["eligible"] != (pred_base != target), contradicts("eligible", "pred_base", "target")
    yield columns["flip_to_target"] != (pred_patch == target), contradicts("flip_to_target", "pred_patch", "target")
    yield (
        columns["flip_from_base"] != (pred_patch != pred_base),
        contradicts("flip_from_base", "pred_patch", "pred_base"),
    )
    moved = patch[rows, target] - base[rows, target]
    yield (
        np.abs(columns["delta_logit_target"] - moved) > ROUNDING,
        lambda row: "delta_logit_target is not the difference of the target's logits",
    )


def _columns(rows: Sequence[Record]) -> Columns:
    columns, names = {}, type(rows[0]).__struct_fields__
    for name, values in zip(names, zip(*map(msgspec.structs.astuple, rows), strict=True), strict=True):
        if name in LOGITS:
            numbers = chain.from_iterable(map(msgspec.structs.astuple, values))
            columns[name] = np.fromiter(numbers, float, len(rows) * len(LABELS)).reshape(-1, len(LABELS))
        else:
            columns[name] = _array(values)
    return columns


def _array(values: Sequence[Any]) -> np.ndarray:
    """Numbers as such, texts each held once, and whatever else an option takes as it is."""
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else object
    if kind in _TYPES:
        try:
            return np.array(values, _TYPES[kind])
        except OverflowError:  # a swept option's value, which may be of any size
            pass
    array = np.empty(len(values), object)
    array[:] = list(map(sys.intern, values)) if kind is str else values
    return array


def _end(starts: np.ndarray, number: int, n: int) -> int:
    return int(starts[number + 1]) if number + 1 < len(starts) else n


def _numbered(values: Sequence[Any]) -> dict[Any, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(map(_hashable, values)))}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else msgspec.json.encode(value).decode()


def _short(value: Any) -> str:
    text = value_text(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
