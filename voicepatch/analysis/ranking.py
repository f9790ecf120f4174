"""Which heads and MLPs rank highest by their estimated effects, and the sets of them that are then patched exactly.

    pairs = pairs_among(by.pairs, half_that_ranks(by))
    names = ranked(by.records, pairs["pair_id"])                 # ["6.mlp", "5.3", …]
    sets = sets_of(names, top=10, draws=5, seed=42)              # "6.mlp", "6.mlp+5.3", …, "all"
    roles(top=10, draws=5)                                       # what each of them is, in the same order

One half of the texts ranks and the other half measures, so that the best of many noisy estimates is not measured by
its own noise. Other heads may stand in for a single one, so sets, and all parts but them, are patched as well.
"""

import random
from collections.abc import Collection, Sequence

import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import MIN_TEXTS
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.types.pair import half_of

# In fewer pairs, one pair makes up more than a tenth of each mean, and the order of the parts may be its own. With
# fewer than `MIN_TEXTS` texts no mean has an interval either.
MIN_PAIRS = 10
TRIES = 200
ALONE, JOINT, WITHOUT, RANDOM, ALL = "alone", "jointly", "all but them", "random", "all"


def estimates_of(results: Results, kind: str) -> ExperimentResults | None:
    """The finished estimates of each head and MLP in a run; None where there are none."""
    found = [e for e in results.valid if e.is_estimate and e.kind == kind and e.swept == ["head"] and e.finished]
    return found[0] if found and found[0].records is not None else None


def half_that_ranks(by: ExperimentResults) -> set[str]:
    """The texts on which the parts are ranked; on the others they are patched."""
    return half_of({*by.pairs["text_id_a"], *by.pairs["text_id_b"]}, by.seed)


def too_few(which: str, pairs: pd.DataFrame) -> list[str]:
    """A warning where pairs, rows of a pair list, are too few for a mean over them to say anything."""
    n, n_texts = len(pairs), len({*pairs["text_id_a"], *pairs["text_id_b"]})
    if n >= MIN_PAIRS and n_texts >= MIN_TEXTS:
        return []
    found = f"{n} pair{'s' if n != 1 else ''} of {n_texts} text{'s' if n_texts != 1 else ''}"
    return [f"the parts are {which} {found}; with under {MIN_PAIRS} pairs or {MIN_TEXTS} texts nothing follows from it"]


def ranked(records: pd.DataFrame, pair_ids: Collection[str]) -> list[str]:
    """Parts as `LAYER.HEAD` or `LAYER.mlp`, the one that raises the target's estimated logit most first."""
    mine = records[records["pair_id"].isin(set(pair_ids))]
    parts = mine["layer"].astype(str) + "." + mine["head"].astype(str)
    means = mine["delta_logit_target"].groupby(parts).mean()
    return sorted(means.index, key=lambda part: (-means[part], part))


def pairs_among(pairs: pd.DataFrame, texts: Collection[str]) -> pd.DataFrame:
    """The pairs, rows of a pair list, whose texts are all among `texts`."""
    return pairs[pairs["text_id_a"].isin(set(texts)) & pairs["text_id_b"].isin(set(texts))]


def roles(top: int, draws: int) -> list[tuple[str, int, int]]:
    """(role, number of parts, draw) of each set, in the order of `sets_of`; alone, the number is the rank."""
    numbers = range(1, top + 1)
    found = [(JOINT, k, 0) for k in numbers] + [(ALONE, k, 0) for k in numbers[1:]]
    found += [(WITHOUT, k, 0) for k in numbers]
    return [*found, *((RANDOM, k, draw) for draw in range(draws) for k in numbers), (ALL, 0, 0)]


def sets_of(names: Sequence[str], top: int, draws: int, seed: int) -> list[str]:
    """The sets as `--components` takes them, each once: a random one that was drawn before is drawn again.

    A random set has as many parts of each layer as the ranked one, none of them among the `top`, as far as the layers
    have enough others. `UserError` where the model has too few parts for sets that differ.
    """
    if 2 * top > len(names):
        raise UserError(f"--top {top}: {len(names)} heads and MLPs are ranked; choose at most half of them", BAD_USAGE)
    best, found = names[:top], []
    for role, k, draw in roles(top, draws):
        if role in (JOINT, ALONE):
            found.append("+".join(best[:k]) if role == JOINT else best[k - 1])
        elif role == WITHOUT:
            found.append("-".join(["all", *best[:k]]))
        elif role == ALL:
            found.append("all")
        else:
            found.append(_random_set(best, names[top:], k, f"{seed}:{draw}:{k}", found))
    return found


def _random_set(best: Sequence[str], others: Sequence[str], k: int, seed: str, taken: Collection[str]) -> str:
    generator = random.Random(seed)
    for attempt in range(TRIES):
        chosen: list[str] = []
        for part in best[:k]:
            free = [name for name in others if name not in chosen]
            same_layer = [name for name in free if name.split(".")[0] == part.split(".")[0]]
            chosen.append(generator.choice(same_layer if same_layer and attempt < TRIES // 2 else free))
        text = "+".join(sorted(chosen, key=lambda name: [part.zfill(4) for part in name.split(".")]))
        if text not in taken:
            return text
    raise UserError(f"--draws: no further random set of {k} parts is found; choose fewer draws", BAD_USAGE)
