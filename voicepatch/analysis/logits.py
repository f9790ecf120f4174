"""Logits as a column of a table: one [rows, labels] array, of which each row is read as an object label → logit.

records["logits_base"] = Logits(values, labels)      # values [rows, labels]
records["logits_base"].iloc[0]["happy"]
logits_of(records["logits_base"]).log_softmax()      # [rows, labels]
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, take
from scipy import special


def logits_of(column: pd.Series) -> "Logits":
    """A column of logits, whether it is stored so or as objects label → logit."""
    return column.array if isinstance(column.array, Logits) else Logits._from_sequence(column)


class LogitsDtype(ExtensionDtype):
    """The type of a column of logits."""

    name = "logits"
    type = dict

    @classmethod
    def construct_array_type(cls) -> Any:
        return Logits


class Logits(ExtensionArray):
    """A column of logits, `values` [rows, labels]; a row is missing where they are NaN."""

    dtype = LogitsDtype()

    def __init__(self, values: np.ndarray, labels: Sequence[str]):
        self.values, self.labels = values, tuple(labels)

    def of(self, labels: pd.Series) -> pd.Series:
        """The logit of one label a row."""
        columns = labels.map(self.labels.index).to_numpy(int)
        return pd.Series(self.values[np.arange(len(self)), columns], labels.index)

    def answers(self) -> np.ndarray:
        """The label with the largest logit, [rows]."""
        return np.array(self.labels, object)[self.values.argmax(1)]

    def lead(self) -> np.ndarray:
        """How far the largest logit is above the second largest, [rows]."""
        ordered = np.sort(self.values, axis=1)
        return ordered[:, -1] - ordered[:, -2]

    def log_softmax(self) -> np.ndarray:
        """Log-probabilities among the labels, [rows, labels], in nats."""
        return special.log_softmax(self.values, axis=1)

    def softmax(self) -> np.ndarray:
        """Probabilities among the labels, [rows, labels]."""
        return special.softmax(self.values, axis=1)

    @classmethod
    def _from_sequence(cls, scalars: Iterable[Any], *, dtype: Any = None, copy: bool = False) -> "Logits":
        rows = list(scalars)
        labels = next((tuple(row) for row in rows if isinstance(row, dict)), ())
        missing = dict.fromkeys(labels, np.nan)
        known = [row if isinstance(row, dict) else missing for row in rows]
        return cls(
            np.array([[row[label] for label in labels] for row in known], float).reshape(-1, len(labels)), labels
        )

    @classmethod
    def _concat_same_type(cls, arrays: Sequence["Logits"]) -> "Logits":
        return cls(np.concatenate([array.values for array in arrays]), arrays[0].labels)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, (int, np.integer)):
            return dict(zip(self.labels, self.values[item].tolist(), strict=True))
        return Logits(self.values[pd.api.indexers.check_array_indexer(self, item)], self.labels)

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> Any:
        return (self.values == logits_of(pd.Series(other)).values).all(1)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def isna(self) -> np.ndarray:
        return np.isnan(self.values).any(1)

    def take(self, indices: Sequence[int], *, allow_fill: bool = False, fill_value: Any = None) -> "Logits":
        taken = take(self.values, np.asarray(indices), allow_fill=allow_fill, fill_value=np.nan)
        return Logits(taken, self.labels)

    def copy(self) -> "Logits":
        return Logits(self.values.copy(), self.labels)
