"""What the conditions of `--where` leave of the clips and pairs.

selection = Selection(dataset.clips, read_conditions(["text_type=explicit"], dataset.clips, task), "prosody", True)
selection.clips, selection.report()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairs.numbering import Roles, blocks_of, grouped, pairs_possible
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.text import listing
from voicepatch.types.clip import Clip
from voicepatch.types.selection import Condition, read_conditions
from voicepatch.types.task import Task


@dataclass(frozen=True)
class Selection:
    """The clips and the pairs that the `conditions` leave of all clips."""

    all_clips: Sequence[Clip]
    conditions: tuple[Condition, ...]
    kind: str
    same_speaker: bool

    @property
    def clips(self) -> list[Clip]:
        """The clips that fulfil the conditions of all clips, sorted."""
        conditions = [one for one in self.conditions if not one.side]
        clips = sorted(self.all_clips, key=lambda clip: clip.clip_id)
        return [clip for clip in clips if all(one.holds(clip) for one in conditions)]

    def roles(self, agreeing_recipient: bool = False) -> Roles:
        """The conditions of A and B."""
        of_a, of_b = ([one.holds for one in self.conditions if one.side == side] for side in "ab")
        return Roles((*of_a, *([_agrees] if agreeing_recipient else [])), tuple(of_b))

    def report(self) -> list[dict[str, Any]]:
        """What each condition alone leaves: of all clips, or of the pairs of the selected clips."""
        groups = grouped(self.clips, self.kind, self.same_speaker)
        n_pairs = sum(map(len, blocks_of(groups, Roles())))
        found = []
        for one in self.conditions:
            alone = Selection(self.all_clips, (one,), self.kind, self.same_speaker)
            left = sum(map(len, blocks_of(groups, alone.roles()))) if one.side else len(alone.clips)
            of, n_all = ("pairs", n_pairs) if one.side else ("clips", len(self.all_clips))
            found.append({"condition": one.text, "of": of, "n_all": n_all, "n_left": left})
        return found

    def why_none(self) -> str:
        """What each condition leaves, where they leave no pair; "" where there was none without them."""
        if not self.conditions or not pairs_possible(self.all_clips, self.kind, self.same_speaker):
            return ""
        parts = listing(selection_line(row) for row in self.report())
        return f"no {self.kind} pairs with --where: {parts}; leave a condition out, or give it more values"


def select_clips(clips: Sequence[Clip], where: Sequence[str], task: Task) -> list[Clip]:
    """The clips that fulfil conditions on clips; `UserError` for a condition on A or B, and where no clip is left."""
    selection = Selection(clips, read_conditions(where, clips, task), "prosody", same_speaker=False)
    of_pairs = [one.text for one in selection.conditions if one.side]
    if of_pairs:
        raise UserError(
            f"--where {listing(of_pairs)}: a condition on pairs is of no use where there are only clips; leave out "
            "the a. or b. to select clips",
            BAD_USAGE,
        )
    if not selection.clips:
        raise UserError(f"no clip is left by --where: {listing(map(selection_line, selection.report()))}")
    return selection.clips


def selection_line(row: Mapping[str, Any]) -> str:
    """What one condition leaves, in words: `text_type=explicit leaves 100 of 200 clips`."""
    return f"{row['condition']} leaves {row['n_left']:,} of {row['n_all']:,} {row['of']}"


def _agrees(clip: Clip) -> bool:
    return clip.semantic_label == clip.prosody_label
