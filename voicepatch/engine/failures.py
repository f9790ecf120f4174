"""Failures of a single pair, which leave the other pairs as they are."""

from voicepatch.errors import UserError
from voicepatch.text import escape
from voicepatch.types.clip import Clip


class PairFailed(UserError):
    """One pair gives no result; the others may."""


class BadClip(PairFailed):
    """A clip's sound cannot be read."""

    def __init__(self, clip: Clip, error: UserError):
        super().__init__(f"clip {escape(clip.clip_id)}: {error}")


class NotFinite(PairFailed):
    """A non-finite number; the message names the clip and layer where it occurs first."""


class Mistake(Exception):
    """A mistake in an experiment; the engine adds its file and line."""
