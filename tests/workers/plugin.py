"""Experiments that tests run on workers."""

import os
import signal
import time

from interventions.patch import patch
from voicepatch.errors import UserError
from voicepatch.registry.intervention import intervention


@intervention
def scaled(lm, pair, layer, factor=0.5):
    """A's audio span is made smaller."""
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] *= factor
        logits = lm.logits.save()
    return logits


@intervention
def slow(lm, pair, layer):
    """It takes its time in workers, so that a short list is not done before something happens to them."""
    time.sleep(float(os.environ.get("TEST_PAUSE", 0)))
    if os.environ.get("TEST_SHIPPED"):  # set for the nodes of a cluster: they must not read the code where it lies here
        import voicepatch.engine as engine

        if "runtime_resources" not in engine.__file__:
            raise UserError(f"the code is read from {engine.__file__}")
    return patch(lm, pair, layer)


@intervention
def wrong(lm, pair, layer, at="none"):
    """It goes wrong at one pair."""
    if pair.seed.endswith(at):
        raise ValueError("out of order")
    return patch(lm, pair, layer)


@intervention
def deadly(lm, pair, layer, at="none"):
    """Whoever computes one pair is killed."""
    if pair.seed.endswith(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return patch(lm, pair, layer)
