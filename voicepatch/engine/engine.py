"""Runs an experiment: planned and fused where that is possible, else as it is written.

    engine = Engine(llm, "auto")
    found = engine.readouts(experiment, pair, layers=range(36), options=[{"alpha": 1.0}])
    found.logits, found.notes            # A's own readout and one for each layer, and what each of them wrote

`stepwise` runs an experiment as it is written: one trace a layer, with nothing recorded. The other engines find out
what it writes (`engine.plan`) and run all of its rows together (`engine.fused`): `sweep` over all positions, `tail`
only over the positions that a row can change, on recorded keys and values. `auto` is `tail` where every block attends
to all earlier positions or to a window of them, else `sweep`. An experiment that cannot be planned runs as it is
written with any engine; the reason is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import nnsight
import torch
from nnsight import NNsight

from voicepatch.engine.fused import run_rows
from voicepatch.engine.gradients import Gradients
from voicepatch.engine.lm import LM
from voicepatch.engine.memory import is_out_of_memory
from voicepatch.engine.mistakes import (
    changed_clip,
    changed_model,
    explained,
    gave_no_readout,
    other_readout,
    place,
    wrote_nothing,
)
from voicepatch.engine.pair_input import PairInput
from voicepatch.engine.plan import CannotPlan, PlannedLM
from voicepatch.engine.probabilities import refuse_probabilities
from voicepatch.engine.recordings import Recording, Recordings
from voicepatch.engine.rows import Draft, Row, draft_row, relative_changes, resolve_rows
from voicepatch.engine.sites import Site
from voicepatch.engine.written import WrittenLM
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.placement import devices_of
from voicepatch.models.speech_lm import CausalLM, ClipInput
from voicepatch.registry.intervention import Intervention
from voicepatch.types.settings import ENGINES

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """What one call of an experiment wrote: the first position, the number of positions, and the relative change.

    `layer` and `options` are those of the call; `site` names everything that was written. `start` is None where the
    writes could not be observed.
    """

    layer: int
    options: Options
    site: str
    n_positions: int
    start: int | None
    relative_change: float


@dataclass(frozen=True)
class Readouts:
    """`logits [1 + calls, vocabulary]`, with A's own first, and one note a call.

    `as_written` is the reason why the calls ran as written, None where they were planned. `reads_donor` says whether a
    call traced B where B is not A; it is known only for calls that ran as written.
    """

    logits: torch.Tensor
    notes: list[Note]
    as_written: str | None = None
    reads_donor: bool | None = None


class Engine:
    """A decoder and the engine that runs experiments on it. At most `max_rows` rows share a forward."""

    def __init__(self, llm: CausalLM, name: str = "auto", max_rows: int | None = None):
        self.llm, self.name, self.max_rows = llm, _resolved(llm, name), max_rows
        self.n_layers: int = llm.config.num_hidden_layers
        self.devices = devices_of(llm)
        self.recordings = Recordings(llm, with_past=self.name == "tail")
        self.gradients = Gradients(llm, self.recordings)
        self.written = WrittenLM(llm, self.gradients)
        self._planned = PlannedLM(llm, self.recordings, self.gradients)
        self._decoder = NNsight(llm)

    def record(self, clip: ClipInput) -> Recording:
        """The clip's unpatched run, computed on first use."""
        return self.recordings.of(clip)

    def nbytes(self, clip: ClipInput) -> int:
        """Bytes that the recording and the gradients of a clip take on the device; 0 before there are any."""
        return self.recordings.nbytes(clip) + self.gradients.nbytes(clip)

    def readouts(
        self, experiment: Intervention, pair: PairInput, layers: Sequence[int], options: Sequence[Options]
    ) -> Readouts:
        """Call the experiment with each of `options` at each of `layers`; `UserError` for a mistake in it."""
        if self.name == "stepwise":
            return self.as_written(experiment, pair, layers, options)
        try:
            rows = self.plan(experiment, pair, layers, options)
        except CannotPlan as error:
            return self.as_written(experiment, pair, layers, options, f"{place(error, experiment)}: {error}")
        written = [row for row in rows if isinstance(row, Row)]
        if not written:  # the experiment only reads streams out of the recording
            return Readouts(torch.cat([self.recordings.of(pair.a).logits, *rows]), _of_nothing(layers, options))
        logits = run_rows(self._decoder, self.recordings, written, self.name == "tail", self.max_rows)
        changes = relative_changes((row.writes[0].site, row.writes[0].values, row.original) for row in written)
        notes = [
            _note(row.layer, row.options, [(write.site, write.positions) for write in row.writes], change)
            for row, change in zip(written, changes, strict=True)
        ]
        return Readouts(logits, notes)

    def plan(
        self, experiment: Intervention, pair: PairInput, layers: Sequence[int], options: Sequence[Options]
    ) -> list[Row] | list[torch.Tensor]:
        """What each call writes and what is known about it; `CannotPlan` where a call must run to be known.

        For an experiment that writes nothing, and reads a stream out or estimates: the logits `[1, vocabulary]` of
        each call.
        """
        computes = experiment.approximate or experiment.reads_only  # and may return logits that it computed
        drafts: list[Draft] = []
        read: list[torch.Tensor] = []
        # Outside inference mode, copies of recordings count their changes.
        with self._planned.copying_clips(pair) as mine, torch.inference_mode(False), torch.no_grad():
            for chosen, layer in product(options, layers):
                self._planned.traces = []
                result = _called(experiment, self._planned, mine, layer, chosen)
                if result is None:
                    raise gave_no_readout(experiment, result)
                traces = self._planned.traces
                last = traces[-1] if traces and traces[-1].clip is pair.a else None
                if last and (last.read_out(result) or (computes and last.estimated(result))):
                    if result.shape != (own := self.recordings.of(pair.a).logits).shape:
                        raise gave_no_readout(experiment, result, own.shape)
                    read.append(result)
                else:
                    drafts.append(draft_row(self._planned, result, pair.a, layer, chosen))
            if read and drafts:
                raise CannotPlan("some calls patch and some read a stream out")
            return read or resolve_rows(drafts, self.recordings)

    def as_written(
        self,
        experiment: Intervention,
        pair: PairInput,
        layers: Sequence[int],
        options: Sequence[Options],
        why: str | None = None,
    ) -> Readouts:
        """The same readouts, with each call run as the experiment is written; `why` is kept as the reason."""
        lm, logits, notes, changes = self.written, [], [], []
        reads_donor = reached = False
        lm.forget()
        with lm.copying_clips(pair) as mine, torch.inference_mode(), lm.ending_early():
            with lm.trace(pair.a):
                base = nnsight.save(lm.logits)
            for chosen, layer in product(options, layers):
                lm.forget()
                readout = _called(experiment, lm, mine, layer, chosen)
                reads_donor |= pair.b is not pair.a and any(trace.clip is pair.b for trace in lm.traces)
                logits.append(_checked(experiment, readout, base, lm, pair))
                writes = lm.writes()
                if not writes and (lm.unembedded or experiment.approximate or experiment.reads_only):
                    notes += _of_nothing([layer], [chosen])
                elif not writes and not lm.used_raw_attribute:
                    raise wrote_nothing(experiment)
                else:
                    notes.append(_note(layer, chosen, [(write.site, write.positions) for write, _ in writes]))
                new, old = (writes[0][0].values, writes[0][1]) if writes else (base, base)
                changes.append((writes[0][0].site if writes else None, new, old))
                reached |= lm.reached_model
            if reached:  # a weight, a hook or a setting of a module may have stayed changed
                with lm.trace(pair.a):
                    again = nnsight.save(lm.logits)
                if not torch.equal(again, base):
                    raise changed_model(experiment)
            if logits:
                refuse_probabilities(experiment, base, logits)
            relative = relative_changes(changes)
            lm.forget()
        return Readouts(
            torch.cat([base, *logits]),
            [replace(n, relative_change=s) for n, s in zip(notes, relative, strict=True)],
            why,
            reads_donor,
        )


def _called(experiment: Intervention, lm: LM, pair: PairInput, layer: int, options: Options) -> Any:
    try:
        result = experiment.run(lm, pair.reset_rng(), layer, **options)
    except (CannotPlan, UserError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise explained(error, experiment) from error
    changed = lm.clip_copies.changed()
    if changed:
        raise changed_clip(experiment, changed)
    return result


def _checked(
    experiment: Intervention, readout: Any, base: torch.Tensor, lm: WrittenLM, pair: PairInput
) -> torch.Tensor:
    if not isinstance(readout, torch.Tensor) or readout.shape != base.shape or not readout.is_floating_point():
        raise gave_no_readout(experiment, readout, base.shape)
    if not lm.traces:
        raise other_readout(experiment, None, "opens no trace")
    last = lm.traces[-1]
    if last.clip is not pair.a:
        whose = "pair.b" if last.clip is pair.b else "another clip"
        raise other_readout(experiment, last.where, f"ends with a trace over {whose}")
    if lm.is_of_earlier_trace(readout):
        raise other_readout(experiment, last.where, "returns a readout that was taken before this trace, its last")
    return readout.float()


def _note(layer: int, options: Options, written: Sequence[tuple[Site, Sequence[int]]], change: float = 0.0) -> Note:
    # Positions before the readers of changed keys are written as well, with A's own stream.
    changed = [(site, at) for site, at in written if site.is_key_or_value]
    positions = {position for _, at in changed or written for position in at}
    sites = " + ".join(dict.fromkeys(site.name for site, _ in written))
    return Note(layer, options, sites or "elsewhere", len(positions), min(positions, default=None), change)


def _of_nothing(layers: Sequence[int], options: Sequence[Options]) -> list[Note]:
    return [Note(layer, chosen, "nothing", 0, None, 0.0) for chosen, layer in product(options, layers)]


def _resolved(llm: CausalLM, engine: str) -> str:
    if engine not in ENGINES:
        raise UserError(f"--engine {engine}: unknown; use one of {', '.join(ENGINES)}", BAD_USAGE)
    # A window is a mask over positions, and recordings keep the keys and values of all of them.
    types = set(getattr(llm.config, "layer_types", None) or ())
    has_tail = types <= {"full_attention", "sliding_attention"}
    if engine == "tail" and not has_tail:
        other = ", ".join(sorted(types - {"full_attention", "sliding_attention"}))
        raise UserError(
            f"--engine tail: blocks of this model have another kind of attention ({other}); use sweep", BAD_USAGE
        )
    return ("tail" if has_tail else "sweep") if engine == "auto" else engine
