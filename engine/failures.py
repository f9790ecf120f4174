"""What goes wrong with one pair and leaves the others as they are."""

from errors import UserError
from pairs import Clip
from pairs.shown import shown


class PairFailed(UserError):
    """One pair gives no result; the others may."""


class BadClip(PairFailed):
    """A clip's sound cannot be read."""

    def __init__(self, clip: Clip, error: UserError):
        super().__init__(f"clip {shown(clip.clip_id)}: {error}")


class NotFinite(PairFailed):
    """A number that is none: where it was seen first, by clip and layer."""


class Mistake(Exception):
    """A mistake in an experiment; the engine adds its file and line."""
