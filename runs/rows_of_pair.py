"""Whether the rows of each pair hold together, row by row.

check = RowCheck(pairs, layers=[0, 1, 2], values={}, dose=1.0)
check.wrong(number, record)      # "" or what is wrong with the record in line `number`
check.is_whole                   # whether the pair of the last record has all of its rows
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from runs.row_types import DOSE, PairRow, Record

OF_PAIR = ("clip_a", "clip_b", "target", "semantic_label_b", "prosody_label_b")
OF_FIRST = ("logits_base", "logits_donor", "pred_base", "eligible", "len_a", "len_b")
ROUNDING = 2e-6  # logits are written with six decimals
TOLERANCE_AT = 10.0  # the size of logits up to which a tolerance is what it says; for larger ones it grows with them


class RowCheck:
    """Takes the records of an experiment one by one, a pair's rows one after the other.

    `values` are those of each swept column, `dose` the only alpha where it is not swept; both are None for a run of the
    version before, which does not say: there the first pair's doses are every pair's. `tolerance` is how far apart two
    computations of one clip's logits may be, where those are of the size 10.
    """

    def __init__(
        self,
        pairs: Sequence[PairRow],
        layers: Sequence[int],
        values: Mapping[str, Any] | None,
        dose: Any = None,
        tolerance: float = 0.0,
    ):
        self._pairs = {pair.pair_id: pair for pair in pairs}
        self._layers, self._dose, self._tolerance = list(layers), dose, tolerance
        self._swept = [DOSE] if values is None else list(values)
        known = None if values is None else [_listed(chosen) for chosen in values.values()]
        self._cells = None if known is None else set(product(self._layers, *known))
        self._pair: PairRow | None = None
        self._first: tuple = ()
        self._seen: dict[Any, int] = {}  # cell → line
        self._clips: dict[str, tuple[int, int, dict[str, float]]] = {}  # clip → line, length, unpatched logits
        self.done: set[str] = set()

    @property
    def is_whole(self) -> bool:
        """Whether the pair of the last record has all of its rows."""
        return self._pair is not None and self._pair.pair_id in self.done

    def missing(self) -> str:
        """What the pair of the last record lacks."""
        rest = sorted(set(self._expected()) - set(self._seen), key=str)
        return f"pair {_short(self._pair.pair_id)} ends with {len(self._seen)} rows; {self._cell(rest[0])} is missing"

    def wrong(self, number: int, record: Record) -> str:
        """What is wrong with the record in line `number`; "" where nothing is."""
        if self._pair is None or record.pair_id != self._pair.pair_id:
            wrong = self._begin(number, record)
            if wrong:
                return wrong
        return self._wrong_in_pair(record) or self._wrong_cell(number, record) or _wrong_in_itself(record)

    def _begin(self, number: int, record: Record) -> str:
        if self._pair is not None:
            if not self.is_whole:
                return f"begins another pair, but {self.missing()}"
            self._cells = self._cells or set(self._expected())
        if record.pair_id in self.done:
            return f"gives pair {_short(record.pair_id)} a second time"
        pair = self._pairs.get(record.pair_id)
        if pair is None:
            return f"is of pair {_short(record.pair_id)}, which the pair list lacks"
        self._pair, self._seen = pair, {}
        self._first = tuple(getattr(record, name) for name in OF_FIRST)
        self._facts = tuple(getattr(pair, name) for name in OF_PAIR)
        for clip, logits, length in (
            (pair.clip_a, record.logits_base, record.len_a),
            (pair.clip_b, record.logits_donor, record.len_b),
        ):
            line, its_length, its_logits = self._clips.setdefault(clip, (number, length, logits))
            if its_length != length:
                return f"gives clip {_short(clip)} {length} audio positions, where line {line} gives {its_length}"
            tolerance = self._tolerance * max(1.0, *(abs(value) / TOLERANCE_AT for value in logits.values()))
            if any(abs(its_logits[label] - value) > tolerance for label, value in logits.items()):
                return f"gives clip {_short(clip)} other unpatched logits than line {line}"
        return ""

    def _wrong_in_pair(self, record: Record) -> str:
        facts = (record.clip_a, record.clip_b, record.target, record.semantic_label_b, record.prosody_label_b)
        if facts != self._facts:
            name, is_, was = _differing(OF_PAIR, facts, self._facts)
            return f"{name} is {_short(is_)}, where the pair list has {_short(was)}"
        of_first = (
            record.logits_base,
            record.logits_donor,
            record.pred_base,
            record.eligible,
            record.len_a,
            record.len_b,
        )
        if of_first != self._first:
            return f"{_differing(OF_FIRST, of_first, self._first)[0]} is not what the pair's first row has"
        # Texts are held once in memory, however many rows repeat them.
        record.pair_id, record.clip_a, record.clip_b = self._pair.pair_id, self._pair.clip_a, self._pair.clip_b
        return ""

    def _wrong_cell(self, number: int, record: Record) -> str:
        cell = (record.layer, *[_hashable(getattr(record, column)) for column in self._swept])
        if cell in self._seen:
            return f"gives {self._cell(cell)} of its pair a second time"
        known = record.layer in self._layers if self._cells is None else cell in self._cells
        if not known or self._dose not in (None, record.patch_alpha):
            dose = "" if DOSE in self._swept else f", alpha {record.patch_alpha:g}"
            return f"{self._cell(cell)}{dose} is not among those of the configuration"
        self._seen[cell] = number
        if len(self._seen) == len(self._cells or self._expected()):
            self.done.add(self._pair.pair_id)
        else:
            self.done.discard(self._pair.pair_id)  # the next dose of a first pair that tells them
        return ""

    def _expected(self) -> list[tuple]:
        if self._cells is not None:
            return list(self._cells)
        return list(product(self._layers, {cell[1] for cell in self._seen}))

    def _cell(self, cell: tuple) -> str:
        names = ["alpha" if name == DOSE else name for name in self._swept]
        return ", ".join(f"{name} {_short(value)}" for name, value in zip(["layer", *names], cell, strict=True))


def _wrong_in_itself(record: Record) -> str:
    base, patch, target = record.logits_base, record.logits_patch, record.target
    if patch[record.pred_patch] < max(patch.values()):
        return f"pred_patch is {record.pred_patch}, whose logit is not the largest of logits_patch"
    if base[record.pred_base] < max(base.values()):
        return f"pred_base is {record.pred_base}, whose logit is not the largest of logits_base"
    if record.eligible != (record.pred_base != target):
        return f"eligible contradicts pred_base {record.pred_base} and target {target}"
    if record.flip_to_target != (record.pred_patch == target):
        return f"flip_to_target contradicts pred_patch {record.pred_patch} and target {target}"
    if record.flip_from_base != (record.pred_patch != record.pred_base):
        return f"flip_from_base contradicts pred_patch {record.pred_patch} and pred_base {record.pred_base}"
    if abs(record.delta_logit_target - (patch[target] - base[target])) > ROUNDING:
        return "delta_logit_target is not the difference of the target's logits"
    return ""


def _differing(names: Sequence[str], values: Sequence[Any], expected: Sequence[Any]) -> tuple[str, Any, Any]:
    return next((n, v, e) for n, v, e in zip(names, values, expected, strict=True) if v != e)


def _listed(chosen: Any) -> list[Any]:
    return [_hashable(value) for value in (chosen if isinstance(chosen, list) else [chosen])]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else msgspec.json.encode(value).decode()


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
