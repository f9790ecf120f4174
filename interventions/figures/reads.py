"""What reading the donor's keys and values shows, in a sentence: how often the answer becomes B's, and until where.

sentences(results, experiment)               # ["With B's keys and values read at 9 layers …"]
"""

from voicepatch.analysis.cells import first_from
from voicepatch.analysis.experiment_results import TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import estimate_text
from voicepatch.figures.headings import band_notes, layers_of_band

READERS = {"after": "all later positions", "question": "the question", "last": "the last position"}
SOURCES = {"span": "the audio span", "question": "the question"}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """The largest share of eligible pairs that answer with B's label, and from which layer on it is less than half."""
    if experiment.swept or experiment.curve[TO_TARGET_ELIGIBLE].isna().all():
        return []
    options, curve = experiment.settings["options"], experiment.curve.set_index("layer")
    rates, n = curve[TO_TARGET_ELIGIBLE], int(curve["eligible_count"].max())
    best = rates.max()
    source, readers = SOURCES[options["source"]], READERS[options["readers"]]
    what = f"B's keys and values over {source} read by {readers} at {layers_of_band(options)}"
    if not best:
        return [f"With {what}, none of the {n} eligible pairs answers with B's label."]
    falls = first_from(rates < best / 2)
    then = f"; from l = {falls} on it is less than half of that" if falls is not None else ""
    most = estimate_text(curve.loc[rates.idxmax()], TO_TARGET_ELIGIBLE)
    found = f"at most {most} of the {n} eligible pairs answer with B's label (l = {rates.idxmax()}){then}"
    return [f"With {what}, {found}.", *band_notes(options, int(results.config["model"]["n_layers"]))]
