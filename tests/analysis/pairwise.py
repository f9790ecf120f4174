"""The statistics of voicepatch/analysis/clusters.py pair by pair, as their formulas stand in docs/statistics.md.

Every array is [pairs, pairs] or [resamples, pairs], and nothing is saved by any identity: the reference for what
voicepatch/analysis/sharing.py computes over texts.
"""

import numpy as np


def touched(codes, n_codes):
    """[rows, texts]: 1 where the row has the text."""
    table = np.zeros((len(codes), n_codes + 1))
    table[np.arange(len(codes))[:, None], codes] = 1
    return table[:, :-1]


def weights_of(codes, n_codes, resamples, seed):
    """How often each row counts in each resample of texts, [resamples, rows]."""
    counts = np.random.default_rng(seed).multinomial(n_codes, np.full(n_codes, 1 / n_codes), size=resamples)
    counts = np.hstack([counts, np.ones((resamples, 1), int)])
    return counts[:, codes].prod(2).astype(float)


def variance_of(influence, shares, codes, n_codes):
    rows = touched(codes, n_codes)
    common = rows @ rows.T
    shared, working = (common > 0).astype(float), common + np.eye(len(codes))
    factors, dofs = np.ones(shares.shape[1]), np.zeros(shares.shape[1])
    for i, h in enumerate(shares.T):
        sides = np.column_stack([h > 0, h < 0]).astype(float)
        centre = np.diag((h != 0).astype(float)) - (sides / np.maximum(sides.sum(0), 1)) @ sides.T
        form = centre @ (shared * np.outer(h, h)) @ centre @ working
        if (expected := np.trace(form)) > 1e-12:
            factors[i] = max(1.0, h @ working @ h / expected)
            dofs[i] = expected**2 / (form * form.T).sum()
    least = ((rows.T @ influence) ** 2).sum(0) / 4
    return np.maximum(products(influence, influence, shared) * factors, least), dofs


def products(one, other, over):
    return np.einsum("il,il->l", one, over @ other)


def shared_between(codes, other_codes, n_codes):
    return (touched(codes, n_codes) @ touched(other_codes, n_codes).T > 0).astype(float)


def mean_of(values, codes, n_codes, weights):
    """value, error, dof and influence of each column's mean."""
    there = ~np.isnan(values)
    count, known = there.sum(0), np.nan_to_num(values)
    value = known.sum(0) / count
    influence = there / count * np.nan_to_num(values - value)
    rows = touched(codes, n_codes)
    counted = products(influence, influence, 2.0 ** (rows @ rows.T) - 1)
    variance, dof = variance_of(influence, there / count, codes, n_codes)
    variance = np.maximum(variance, ((rows.T @ influence) ** 2).sum(0) / rows.sum(1).max())
    with np.errstate(invalid="ignore"):
        replicates = weights @ known / (weights @ there)
    error = np.nanstd(replicates, axis=0) * np.sqrt(
        np.divide(variance, counted, out=np.ones(len(value)), where=counted > 0)
    )
    return value, np.where(dof > 0, error, np.nan), dof, influence
