"""Is it the sound (SPEC section 6)? Positions of the prompt's text must not follow the main curve."""

import torch

from interventions import intervention
from voicepatch.errors import UserError


def prompt_run(pair):
    """A random run of positions after the span, before the readout: in A, and the same tokens in B.

    It is as long as the aligned span, or as the prompt allows. Before the span nothing can change, since A and B have
    the same values there.
    """
    after = range(pair.a.span.stop, pair.a.readout_pos)
    if not after:
        raise UserError("non-audio: this prompt has no text between the audio span and the readout")
    n = min(pair.n_patched, len(after))
    start = pair.rng.choice(after[: len(after) - n + 1])
    shift = pair.b.readout_pos - pair.a.readout_pos
    return slice(start, start + n), slice(start + shift, start + shift + n)


@intervention(control=True, expected="no curve that follows the main curve", most_of_main=0.5)
def non_audio(lm, pair, layer, alpha=1.0):
    """Positions of the prompt's text after the audio span are patched instead, the same ones at every layer."""
    a_run, b_run = prompt_run(pair)
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, b_run].save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_run] = torch.lerp(stream[:, a_run], donor, alpha)
        logits = lm.logits.save()
    return logits
