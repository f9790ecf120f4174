"""Runs that end with their records, where what follows from them is not what is tried."""

from contextlib import contextmanager

import pytest


@contextmanager
def without_figures():
    """Inside, no metrics, figures and report follow a run of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicepatch.commandline.showing.summary", lambda *_: None)
        patch.setattr("voicepatch.commandline.showing.report", lambda *_: None)
        yield
