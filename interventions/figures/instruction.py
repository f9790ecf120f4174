"""What the unpatched model answers to the two questions of an instruction contrast.

sentences(results, experiment)
"""

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """In how many clips the two questions have different answers: in no other one can patching change an answer."""
    first = experiment.records.drop_duplicates("pair_id")
    answers, others = (logits_of(first[logits]).answers() for logits in ("logits_base", "logits_donor"))
    n, n_different = len(first), int((answers != others).sum())
    found = f"The model, unpatched, answers the two questions differently in {n_different} of {n} clips"
    if not n_different:
        found += ", so the donor's instruction has nothing to change here"
    return [f"{found}."]
