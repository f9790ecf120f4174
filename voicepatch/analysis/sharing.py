"""Rows that share texts: sums over texts, bootstrap sums, and the variance of a mean, in time linear in the rows.

    sharing = Sharing.of(codes_of(texts_of(pairs)))
    sharing.sums(influence)                          # by text, and by set of texts that a row has together
    Draws(sharing.n_codes, 2000, seed).sums(values, sharing)
    variance_of(influence, shares, sharing)

docs/statistics.md has the derivations. "Texts" are all that rows can share: texts, and speakers where they count.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

BLOCK_BYTES = 64 << 20  # the most memory that a step takes beside the rows


def texts_of(pairs: pd.DataFrame) -> np.ndarray:
    """The recipient's and the donor's text of each pair, [pairs, 2]."""
    return pairs[["text_id_a", "text_id_b"]].astype(str).to_numpy(object)


def codes_of(texts: np.ndarray) -> np.ndarray:
    """The texts of each row as numbers, [rows, texts a row]; a repeated text of a row is −1."""
    codes: np.ndarray = np.unique(texts.astype(str), return_inverse=True)[1].reshape(texts.shape)
    for way in range(1, codes.shape[1]):
        codes[(codes[:, :way] == codes[:, [way]]).any(1), way] = -1
    return codes


@dataclass(frozen=True)
class Sharing:
    """Which rows have which texts. A key is a text, or a set of texts that some row has together.

    Two rows share a text where Σ sign · (both have the key) is 1 and not 0, by inclusion and exclusion.
    """

    sets: np.ndarray  # [sets, texts a row] the distinct rows of codes
    of_row: np.ndarray  # [rows] number of the row's set
    has: Any  # sparse [sets, keys]: 1 where the set contains the key; the first n_codes keys are the single texts
    sign: np.ndarray  # [keys] 1 for an odd number of texts, −1 for an even one
    n_codes: int

    @classmethod
    def of(cls, codes: np.ndarray) -> "Sharing":
        sets, of_row = np.unique(-np.sort(-codes, axis=1), axis=0, return_inverse=True)
        n_codes, width = int(codes.max()) + 1, codes.shape[1]
        blocks, signs = [], []
        for size in range(1, width + 1):
            of_ways = [list(ways) for ways in combinations(range(width), size)]
            with_texts = [np.flatnonzero((sets[:, ways] >= 0).all(1)) for ways in of_ways]
            rows = np.concatenate(with_texts)
            keys = np.concatenate([sets[mine][:, ways] for mine, ways in zip(with_texts, of_ways, strict=True)])
            number, n_keys = keys[:, 0], n_codes
            for column in keys.T[1:]:
                distinct, number = np.unique(number * n_codes + column, return_inverse=True)
                n_keys = len(distinct)
            blocks.append(sparse.csr_array((np.ones(len(rows)), (rows, number)), shape=(len(sets), n_keys)))
            signs.append(np.full(n_keys, (-1.0) ** (size + 1)))
        return cls(sets, of_row.ravel(), sparse.hstack(blocks, format="csr"), np.concatenate(signs), n_codes)

    def split(self, n: int) -> tuple["Sharing", "Sharing"]:
        """The first n rows, and the others, with the same texts and keys."""
        return replace(self, of_row=self.of_row[:n]), replace(self, of_row=self.of_row[n:])

    @cached_property
    def touches(self) -> Any:
        """Sparse [sets, texts]: 1 where the set contains the text."""
        return self.has[:, : self.n_codes]

    def by_set(self, columns: np.ndarray) -> np.ndarray:
        """Sums of columns [rows, cells] over the rows of each set, [sets, cells]."""
        return self._rows_of_sets @ columns

    @cached_property
    def _rows_of_sets(self) -> Any:
        """Sparse [sets, rows]: 1 where the row has the set."""
        rows = np.arange(len(self.of_row))
        shape = (len(self.sets), len(rows))
        return sparse.csr_array((np.ones(len(rows)), (self.of_row, rows)), shape=shape)

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums of columns [rows, cells] over the rows of each key, [keys, cells]."""
        return self.has.T @ self.by_set(columns)


@dataclass(frozen=True)
class Draws:
    """Resamples of whole texts: as many texts as there are, drawn with replacement.

    A row counts as often as the product of its texts' counts: the pigeonhole bootstrap (Owen 2007, Annals of Applied
    Statistics 1:386), with one count of a text for both roles (Snijders & Borgatti 1999, Connections 22:61).
    """

    n_codes: int
    count: int
    seed: int

    def sums(self, columns: np.ndarray, sharing: Sharing) -> np.ndarray:
        """Weighted column sums of [rows, cells] in each resample, [resamples, cells]; the same draws at each call."""
        table, random = sharing.by_set(columns), np.random.default_rng(self.seed)
        sums, chances = np.empty((self.count, columns.shape[1])), np.full(self.n_codes, 1 / self.n_codes)
        for block in blocks(self.count, 8 * (3 * len(table) + self.n_codes)):
            drawn = random.multinomial(self.n_codes, chances, size=block.stop - block.start)
            counts = np.hstack([drawn, np.ones((len(drawn), 1), int)])  # the last is what −1 picks
            weights = np.ones((len(drawn), len(table)))
            for way in sharing.sets.T:
                weights *= counts[:, way]
            sums[block] = weights @ table
        return sums


def blocks(count: int, bytes_each: int) -> list[slice]:
    """0 to `count` in slices of at most BLOCK_BYTES, where each item takes `bytes_each`."""
    step = max(1, BLOCK_BYTES // max(1, bytes_each))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def variance_of(influence: np.ndarray, shares: np.ndarray, sharing: Sharing) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a sum of influences, and the degrees of freedom of that estimate, both [cells].

    `influence` and `shares` are [rows, cells]. The variance is the sum of products over rows that share a text
    (Aronow, Samii & Assenova 2015, Political Analysis 23:564), times the factor of Bell & McCaffrey (2002, Survey
    Methodology 28:169), and at least a quarter of the texts' squares, since it can come out negative.
    """
    factor, dof = _factors(shares, sharing)
    squares = sharing.sums(influence) ** 2
    return np.maximum(sharing.sign @ squares * factor, squares[: sharing.n_codes].sum(0) / 4), dof


def _factors(shares: np.ndarray, sharing: Sharing) -> tuple[np.ndarray, np.ndarray]:
    """Factor and degrees of freedom of each column of shares; equal columns are computed once."""
    first: dict[bytes, int] = {}
    which = [first.setdefault(column.tobytes(), i) for i, column in enumerate(shares.T)]
    found = {i: _factor(shares[:, i], sharing) for i in first.values()}
    factor, dof = np.array([found[i] for i in which]).reshape(-1, 2).T
    return factor, dof


def _factor(h: np.ndarray, sharing: Sharing) -> tuple[float, float]:
    """(h'Wh / tr Q, (tr Q)² / tr Q²) for Q = C (S∘hh') C W; docs/statistics.md names and derives each part."""
    has, sign, texts = sharing.has, sharing.sign, sharing.touches
    sides = np.column_stack([h > 0, h < 0]).astype(float)
    unit = sides / np.sqrt(np.maximum(sides.sum(0), 1))  # E: C = diag(h ≠ 0) − E E'
    sums = sharing.by_set(np.column_stack([h, h**2, unit, unit * h[:, None]]))
    by_h, by_square, by_unit, by_both = sums[:, 0], sums[:, 1], sums[:, 2:4], sums[:, 4:]

    met = (texts.T @ (has * by_h[:, None])).tocsr()  # B = T'HP, [texts, keys]
    reach = has @ (sign[:, None] * (has.T @ by_both))  # SHE, by set
    means, through = texts.T @ by_unit, texts.T @ (by_h[:, None] * reach)  # T'E and T'KE
    inner = by_both.T @ reach  # E'KE
    centred = through.T - inner @ means.T  # E'KCT

    expected = (
        (sign * (met**2).sum(0)).sum()
        - 2 * (means * through).sum()
        + np.trace(means.T @ means @ inner)
        + by_square.sum()
        - np.trace(inner)
    )
    if expected <= 1e-12:
        return 1.0, 0.0
    working = ((texts.T @ by_h) ** 2).sum() + by_square.sum()

    signed = (met * sign).T.tocsr()
    # ‖KCT‖²: each row is that of a sparse matrix less that of a product of two columns.
    cross = -(reach * (has @ (signed @ means))).sum(1)
    own = (reach * (reach @ (means.T @ means))).sum(1)
    between = _squares(has, signed, by_square) + by_square @ (2 * cross + own) - (centred**2).sum()

    square = _squares(met, signed, np.ones(sharing.n_codes)) + _of_two_columns(met, sign, means, through, inner)
    own = sign @ (has.T @ by_square) ** 2 - 2 * by_square @ (reach**2).sum(1) + (inner**2).sum()  # ‖CKC‖²
    return max(1.0, working / expected), expected**2 / (square + 2 * between + own)


def _of_two_columns(met: Any, sign: np.ndarray, means: np.ndarray, through: np.ndarray, inner: np.ndarray) -> float:
    """‖T'CKCT‖² less ‖BΣB'‖²: what the product of two columns adds to the sparse matrix."""
    factors = np.hstack([means, through])
    core = np.block([[inner, -np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
    seen, gram = met.T @ factors, core @ (factors.T @ factors)
    return float(2 * np.trace(core @ (seen.T @ (sign[:, None] * seen))) + np.trace(gram @ gram))


def _squares(left: Any, right: Any, weights: np.ndarray) -> float:
    """Σ weight · ‖row of left @ right‖², in blocks of rows."""
    total = 0.0
    for block in blocks(left.shape[0], 16 * right.shape[1]):
        product = left[block] @ right
        total += weights[block] @ (product**2).sum(1)
    return total
