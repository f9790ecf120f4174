"""How much memory a run takes, found from the model's shape before anything is loaded.

    needed = needed_memory(folder, torch.bfloat16, seconds=10)
    needed.total(n_clips=20)                     # weights, recordings and the rows of a pair, in bytes

The engine's own recording and its own fused forward run on torch's `meta` device, which computes no number, and the
bytes of the tensors that live at the same time are counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from nnsight import NNsight
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voicepatch.engine.engine import Engine
from voicepatch.engine.fused import run_rows
from voicepatch.engine.memory import free_memory
from voicepatch.engine.recordings import Recordings
from voicepatch.engine.rows import Row
from voicepatch.engine.sites import BLOCK, Site, Write
from voicepatch.errors import UserError
from voicepatch.models.checkpoint import stored_bytes
from voicepatch.models.devices import pick_devices, pick_dtype
from voicepatch.models.families import family_of
from voicepatch.models.folder import read_config
from voicepatch.models.placement import Share, shares
from voicepatch.models.speech_lm import PLACEHOLDER_ID, CausalLM, ClipInput

GIB = 1 << 30
BEFORE, AFTER = 16, 48  # positions of the prompt on both sides of the sound; those of a family are about as many
FRAMES_PER_SECOND = 25.0  # of a family that declares none
FIRST = 1  # where the rows of `sweep` begin here: with a past, if only of one position


@dataclass(frozen=True)
class NeededMemory:
    """Bytes: the weights, a clip's recording with its frames, and what a pair of `patch` takes beside the recordings.

    Of several devices, they are those on the fullest one. `n_audio` is the number of audio positions of a clip,
    `n_rows` that of the rows in a forward.
    """

    engine: str
    n_layers: int
    n_audio: int
    n_rows: int
    weights: int
    clip: int
    pair: int

    def total(self, n_clips: int) -> int:
        """Bytes with so many clips held, two of which are those of the pair."""
        return self.weights + max(n_clips, 2) * self.clip + self.pair


class _Held:
    """The bytes of a tensor's storage, counted as long as the storage lives."""

    def __init__(self, nbytes: int, counted: "Allocations"):
        self.nbytes, self.counted = nbytes, counted
        counted.now += nbytes
        counted.peak = max(counted.peak, counted.now)

    def __del__(self) -> None:
        self.counted.now -= self.nbytes


class Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within it: those that live `now`, and the `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor):
                storage = made.untyped_storage()
                if storage._cdata not in given and not hasattr(storage, "held"):
                    storage.held = _Held(storage.nbytes(), self)  # type: ignore[attr-defined]
        return result


def needed_memory(
    folder: Path,
    dtype: torch.dtype,
    engine: str = "auto",
    seconds: float = 10.0,
    layers: Sequence[int] | None = None,
    max_rows: int | None = None,
    n_devices: int = 1,
) -> NeededMemory:
    """What `patch` at `layers` (None: all) takes with clips of `seconds`; `UserError` for a family without shapes.

    At most `max_rows` rows share a forward; with the engine `stepwise`, a forward has one row. On several devices, a
    clip's recording is taken to be spread as the blocks are, and the rows to be on each device.
    """
    family = family_of(read_config(folder))
    if family.without_weights is None:
        raise UserError(
            f"{family.where}: the memory of {family.name} is not known before it is loaded; give @family "
            "without_weights=, a function of the folder and the dtype (docs/own-model.md)"
        )
    model = family.without_weights(folder, dtype)
    if getattr(model.llm.config, "num_experts", None) and dtype == torch.float32:
        # The products of experts have shapes in bfloat16 alone.
        half = needed_memory(folder, torch.bfloat16, engine, seconds, layers, max_rows, n_devices)
        fullest, _ = _fullest(shares(model, n_devices))
        return replace(half, weights=fullest, clip=2 * half.clip, pair=2 * half.pair)
    llm, name = model.llm, Engine(model.llm, family.engine(engine)).name
    n_layers = llm.config.num_hidden_layers
    n_audio = max(1, math.ceil(seconds * (family.frames_per_second or FRAMES_PER_SECOND)))
    of_pair = range(n_layers) if layers is None else layers
    n_rows = 1 if name == "stepwise" else min(len(of_pair), max_rows or len(of_pair))
    # The donor is shorter than its recipient; up to its end, rows need not be computed.
    begins = BEFORE + n_audio * 2 // 3 if name == "tail" else FIRST
    span = slice(BEFORE, BEFORE + n_audio)
    clip, pair = _pair(llm, name == "tail", span, of_pair if n_rows > 1 else of_pair[-1:], n_rows, begins)
    frames = n_audio * llm.config.hidden_size * dtype.itemsize
    weights, n_blocks = _fullest(shares(model, n_devices))
    return NeededMemory(name, n_layers, n_audio, n_rows, weights, (clip + frames) * n_blocks // n_layers, pair)


def _fullest(found: Sequence[Share]) -> tuple[int, int]:
    """The most bytes of weights on a device, and the most blocks on one."""
    return max(share.nbytes for share in found), max(len(share.blocks) for share in found)


def refuse_too_large(folder: Path, device: str | None, dtype: str | None) -> None:
    """`UserError` for a model that does not fit into what is free, with a setting that does; before it is loaded."""
    targets = pick_devices(device)
    chosen, free = pick_dtype(dtype, targets[0]), min(map(free_memory, targets))
    family = family_of(read_config(folder))
    # The stored numbers take two bytes at least. Most models are far from the limit, and nothing is counted.
    if family.without_weights is None or stored_bytes(folder, family) / 2 * chosen.itemsize < free / 2 * len(targets):
        return
    needed = _smallest(folder, chosen, len(targets))
    if needed > free:
        raise UserError(f"{folder}: {does_not_fit(needed, chosen, targets)}")


def does_not_fit(needed: int, dtype: torch.dtype, devices: Sequence[torch.device]) -> str:
    """How much a model needs on a device and what is free there, with the settings that fit."""
    free, halved = min(map(free_memory, devices)), needed * 2 // dtype.itemsize
    ways = [f"--dtype bfloat16 (about {gib(halved)})"] if halved <= free and dtype.itemsize > 2 else []
    if devices[0].type != "cpu" and halved * len(devices) <= free_memory(torch.device("cpu")):
        ways.append("--device cpu --dtype bfloat16")
    everywhere = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    fits = needed * len(devices) <= sum(map(free_memory, everywhere))
    if devices[0].type == "cuda" and len(everywhere) > len(devices) and fits:
        ways.append(f"--device {','.join(map(str, everywhere))}")
    way_out = f"pass {' or '.join(ways)}" if ways else f"take a device with {gib(halved)} free, and --dtype bfloat16"
    name = str(dtype).removeprefix("torch.")
    if len(devices) > 1:
        names = ",".join(map(str, devices))
        return f"needs about {gib(needed)} on one of {names} in {name}, and one has only {gib(free)} free; {way_out}"
    return f"needs about {gib(needed)} in {name}, and {devices[0]} has {gib(free)} free; {way_out}"


def _smallest(folder: Path, dtype: torch.dtype, n_devices: int) -> int:
    """Bytes with one row in a forward and the two clips of a pair; less cannot be had."""
    return needed_memory(folder, dtype, max_rows=1, layers=[0], n_devices=n_devices).total(2)


def gib(nbytes: float) -> str:
    """Bytes as text."""
    return f"{nbytes / GIB:.1f} GiB" if nbytes >= GIB else f"{nbytes / 2**20:.1f} MiB"


def _pair(
    llm: CausalLM, keeps_past: bool, span: slice, layers: Sequence[int], n_rows: int, begins: int
) -> tuple[int, int]:
    """Bytes of a clip's recording, and the peak of a pair beside those of its two clips."""
    with torch.inference_mode(), Allocations() as counted:
        a, b = _clip(llm, span), _clip(llm, span)
        recordings = Recordings(llm, with_past=True)  # without a past, transformers looks at positions, as numbers
        clip = a.inputs_embeds.nbytes + recordings.of(a).nbytes
        recordings.of(b)
        counted.peak = counted.now
        rows = [_row(a, b, layer, begins) for layer in layers]
        run_rows(NNsight(llm), recordings, rows, True, n_rows)
    past = [] if keeps_past else [*recordings.of(a).keys, *recordings.of(a).values]
    return clip - sum(tensor.nbytes for tensor in past), counted.peak - 2 * clip


def _clip(llm: CausalLM, span: slice) -> ClipInput:
    n = span.stop + AFTER
    embeds = torch.empty(1, n, llm.config.hidden_size, dtype=llm.dtype, device="meta")
    ids = torch.tensor([PLACEHOLDER_ID if span.start <= at < span.stop else at for at in range(n)])
    return ClipInput(embeds, ids, torch.arange(span.start, span.stop))


def _row(a: ClipInput, b: ClipInput, layer: int, n: int) -> Row:
    """A row as planned for `patch`: of the stream after a block, a view of its own copy of A's stream is written."""
    copy = torch.empty_like(a.inputs_embeds)[0, a.span]
    return Row(layer, {}, a, [Write(Site(layer, BLOCK, "output"), range(a.span.start, a.span.stop), copy)], copy, b, n)
