"""What the unpatched model answers to the two questions of an instruction contrast.

sentences(results, experiment)
"""

from voicepatch.analysis.experiment_results import ExperimentResults, donor_question
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.text import counted


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """In how many clips the two questions have different answers: in no other one can patching change an answer."""
    first = experiment.records.drop_duplicates("pair_id")
    answers, others = (logits_of(first[logits]).answers() for logits in ("logits_base", "logits_donor"))
    n, n_different = len(first), int((answers != others).sum())
    found = f"The model, unpatched, answers the two questions differently in {n_different} of {counted(n, 'clip')}"
    lines = [f"{found}."]
    if 2 * n_different < n:
        lines.append(
            f"Warning: in the other {counted(n - n_different, 'clip')} both answers are equal, so writing the donor's "
            "instruction has no other answer to give."
        )
    asked = donor_question(experiment)
    return [*lines, *([f"The second question is “{asked}”."] if asked else [])]
