"""Logits as a column of a table: one [rows, labels] array, of which each row is read as an object label → logit.

records["logits_base"] = Logits(values)      # values [rows, labels], in the labels' order
records["logits_base"].iloc[0]["happy"]
matrix(records["logits_base"])               # [rows, labels]
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, take

from models.labels import LABELS


def matrix(logits: pd.Series) -> np.ndarray:
    """A column of logits as [rows, labels], whether it holds them so or as objects label → logit."""
    return logits.array.values if isinstance(logits.array, Logits) else _values(logits)


def _values(rows: Iterable[dict[str, float]]) -> np.ndarray:
    return np.array([[row[label] for label in LABELS] for row in rows], float).reshape(-1, len(LABELS))


class LogitsDtype(ExtensionDtype):
    """The type of a column of logits."""

    name = "logits"
    type = dict

    @classmethod
    def construct_array_type(cls) -> "type[Logits]":
        return Logits


class Logits(ExtensionArray):
    """A column of logits, `values` [rows, labels]; a row is missing where they are NaN."""

    dtype = LogitsDtype()

    def __init__(self, values: np.ndarray):
        self.values = values

    @classmethod
    def _from_sequence(cls, scalars: Sequence[Any], *, dtype: Any = None, copy: bool = False) -> "Logits":
        return cls(_values(row if isinstance(row, dict) else dict.fromkeys(LABELS, np.nan) for row in scalars))

    @classmethod
    def _concat_same_type(cls, arrays: Sequence["Logits"]) -> "Logits":
        return cls(np.concatenate([array.values for array in arrays]))

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, (int, np.integer)):
            return dict(zip(LABELS, self.values[item].tolist(), strict=True))
        return Logits(self.values[pd.api.indexers.check_array_indexer(self, item)])

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> Any:
        return (self.values == matrix(pd.Series(other))).all(1)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def isna(self) -> np.ndarray:
        return np.isnan(self.values).any(1)

    def take(self, indices: Sequence[int], *, allow_fill: bool = False, fill_value: Any = None) -> "Logits":
        return Logits(take(self.values, np.asarray(indices), allow_fill=allow_fill, fill_value=np.nan))

    def copy(self) -> "Logits":
        return Logits(self.values.copy())
