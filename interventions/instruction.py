"""From which layer on does an instruction act, such as "go by the voice"? One clip is asked two questions.

The sound comes before the question, so both runs are the same up to the end of the span. All positions after it
together are therefore the donor's whole run, at any layer. The tokens that both prompts end with receive the
instruction from the tokens before them: patched there, the answer becomes the donor's from the layer on at which it has
been received. Patched at the differing tokens, it becomes the donor's until that layer.
"""

from typing import Literal

from interventions import intervention
from interventions.patch import patch
from pairs.controls import clips_in_conflict


@intervention(pairs=clips_in_conflict, recipients="own", figures="instruction")
def instruction(
    lm,
    pair,
    layer,
    alpha=1.0,
    at: Literal["shared", "differing", "after", "last"] = "shared",
    donor_task="emotion-by-voice",
):
    """The stream of a clip that is asked the question of another task is written into the run of the same clip.

    The clips are those of the main experiment's pairs whose words and voice have different labels, each clip once, so
    20 pairs may have 29 such clips. Positions are aligned from the end.

    at: positions that are written: the tokens that both prompts end with, those before them, all, or the last
    donor_task: the task whose question the donor is asked, by name or as a file; it has the same labels
    """
    return patch(lm, pair, layer, alpha, at)  # pair.b is the same clip under the other question
