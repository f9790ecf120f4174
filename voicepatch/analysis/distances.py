"""How far a state lies from the states that a model has by itself: Mahalanobis distance in principal components.

    limit = np.quantile(left_out_distances(states, k), 0.95)      # states [clips, hidden], unpatched
    outside = distances(states[others], patched, k) > limit       # others: without the clips of the patched row

A state is centred, projected on the first principal components of the natural states, and each coordinate is divided by
its standard deviation there. Nothing is shrunk.
"""

import numpy as np

from voicepatch.errors import UserError

MIN_CLIPS, MOST_COMPONENTS, CLIPS_A_COMPONENT = 24, 16, 4
QUANTILE = 0.95


def check_number(kind: str, n_clips: int) -> None:
    """`UserError` for fewer clips in the pairs of a kind than the distance needs."""
    if n_clips < MIN_CLIPS:
        raise UserError(
            f"check --natural needs {MIN_CLIPS} clips in the {kind} pairs, which have {n_clips}; take more pairs"
        )


def n_components(n_clips: int) -> int:
    """The number of principal components: a quarter of the number of clips, and at most 16."""
    return min(MOST_COMPONENTS, n_clips // CLIPS_A_COMPONENT)


def distances(natural: np.ndarray, states: np.ndarray, k: int) -> np.ndarray:
    """The distance of each of `states` [n, hidden] from `natural` [clips, hidden], by `k` components, [n]."""
    centre = natural.mean(0)
    _, scale, directions = np.linalg.svd(natural - centre, full_matrices=False)
    deviations = scale[:k] / np.sqrt(len(natural) - 1)
    return np.sqrt((((states - centre) @ directions[:k].T / deviations) ** 2).sum(1))


def left_out_distances(natural: np.ndarray, k: int) -> np.ndarray:
    """The distance of each natural state from all the others, [clips]."""
    everyone = range(len(natural))
    return np.array([distances(np.delete(natural, i, axis=0), natural[i : i + 1], k)[0] for i in everyone])
