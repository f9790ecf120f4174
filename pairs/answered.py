"""Pairs that the model answers: A and B, unpatched, each give their own label of the factor that differs.

    sample = build_pairs(dataset.clips, "prosody", answers=answers_of(subject))
    sample.report["answered"]           # how many pairs were tried, how many passed, and why the others did not

Drawn pairs are tried in their order until there are enough, so no more clips run than needed.
"""

import itertools
from collections.abc import Iterator

from pairs.numbering import VARIED, Candidate
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Answers

Chosen = tuple[Candidate, list[tuple[Clip, Clip]]]  # two clips, and their directions (A, B)


class Answered:
    """Tries pairs, and counts them. The first of its directions says which clip of a pair is A."""

    def __init__(self, kind: str, answers: Answers):
        self._label, self._answers = VARIED[kind], answers
        self.counts = {"tried": 0, "passed": 0, "a_did_not": 0, "b_did_not": 0, "neither_did": 0, "no_answer": 0}

    def of(self, drawn: Iterator[Chosen], wanted: int, most_directions: int) -> Iterator[Chosen]:
        """Those of the drawn pairs that pass, until they have the `wanted` number of directions.

        As many are tried at a time as there must be at least, each with at most so many directions.
        """
        n_found = 0
        while n_found < wanted:
            batch = list(itertools.islice(drawn, -(-(wanted - n_found) // most_directions)))
            if not batch:
                return
            answers = self._answers([clip for _, directions in batch for clip in directions[0]])
            for candidate, directions in batch:
                result = self._result(answers, *directions[0])
                self.counts["tried"] += 1
                self.counts[result] += 1
                if result == "passed":
                    n_found += len(directions)
                    yield candidate, directions

    def _result(self, answers: dict[str, str], a: Clip, b: Clip) -> str:
        if not {a.clip_id, b.clip_id} <= set(answers):
            return "no_answer"
        of_a, of_b = (answers[clip.clip_id] == getattr(clip, self._label) for clip in (a, b))
        return {(True, True): "passed", (False, True): "a_did_not", (True, False): "b_did_not"}.get(
            (of_a, of_b), "neither_did"
        )

    @property
    def line(self) -> str:
        """The counts in words."""
        n = self.counts
        reasons = {
            "A alone does not": n["a_did_not"],
            "B alone does not": n["b_did_not"],
            "neither does": n["neither_did"],
            "a clip has no answer": n["no_answer"],
        }
        why = ", ".join(f"in {count} {reason}" for reason, count in reasons.items() if count)
        label = self._label.replace("_", " ")
        line = f"in {n['passed']} of {n['tried']} pairs tried, A and B each answer with their own {label}"
        return f"{line} ({why})" if why else line
