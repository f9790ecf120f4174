"""What a run would take of a device's memory, without loading the model: `check --dry-run`.

dry_run.show(settings, n_clips=125, seconds=10)
"""

import click

from voicepatch.commandline.program import starting
from voicepatch.errors import UserError
from voicepatch.models.adapter_folder import base_of
from voicepatch.models.folder import config_folder
from voicepatch.types.settings import Settings


def show(settings: Settings, n_clips: int, seconds: float) -> None:
    """Show the memory of weights, recordings and rows; `UserError` with settings that fit where they do not."""
    with starting():
        from voicepatch.engine.memory import free_memory
        from voicepatch.engine.needed_memory import does_not_fit, gib, needed_memory
        from voicepatch.models.devices import pick_devices, pick_dtype

    devices = pick_devices(settings.device)
    dtype, free = pick_dtype(settings.dtype, devices[0]), min(map(free_memory, devices))
    folder = config_folder(settings.model)
    folder = config_folder(base_of(folder, settings.base) or folder)
    needed = needed_memory(folder, dtype, settings.engine, seconds, settings.layers, settings.max_rows, len(devices))
    # As ClipStore: half of what is free after loading, unless a limit is given; two clips are always held.
    limit = max(0, free - needed.weights) // 2 if settings.store_mb is None else settings.store_mb << 20
    n_held = min(n_clips, max(2, limit // needed.clip))
    total = needed.total(n_held)
    name = str(dtype).removeprefix("torch.")
    where = devices[0] if len(devices) == 1 else f"each of {', '.join(map(str, devices))}; other lines: the fullest one"
    lines = [
        ("weights", needed.weights, f"{needed.n_layers} layers in {name}"),
        ("recordings", n_held * needed.clip, f"{n_held} of {n_clips} clips, {gib(needed.clip)} each (--store-mb)"),
        ("rows", needed.pair, f"a pair of patch, {needed.n_rows} rows in a forward (--max-rows)"),
        ("total", total, f"clips of {seconds:g} s with {needed.n_audio} audio positions; engine {needed.engine}"),
        ("free", free, f"on {where}"),
    ]
    for what, nbytes, of in lines:
        click.echo(f"{what:<12}{gib(nbytes):>10}   {of}")
    if total > free:
        raise UserError(f"{settings.model}: {does_not_fit(total, dtype, devices)}")
