"""The command `bench`: the cost of a pair."""

import json
from pathlib import Path
from typing import Any

import click

from voicepatch.commandline.options import setting_option
from voicepatch.commandline.param_types import ParamType
from voicepatch.commandline.program import debug_option
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import check_writable, write_whole
from voicepatch.models.adapter_folder import find_checkpoint
from voicepatch.models.families import family_of
from voicepatch.models.folder import read_config
from voicepatch.types.setting import path


@click.command()
@setting_option(
    "model",
    help="Checkpoint folder, or OWNER/NAME of a Hugging Face repository.  [default: random weights, narrow enough for "
    "two cores]",
)
@click.option("--full-size", is_flag=True, help="Random weights in OpenS2S's real shape; needs a CUDA device.")
@setting_option("device", help="cpu, cuda or cuda:N.  [default: cpu; cuda, if available, for the larger models]")
@setting_option("dtype")
@click.option(
    "--rounds", type=click.IntRange(1), default=2, show_default=True, help="Number of rounds; medians are reported."
)
@setting_option("seed", help="Seed of the weights and the sounds.  [default: 0]")
@click.option("--json", "json_file", type=ParamType(path(may_be_folder=False)), help="Write the numbers here too.")
@debug_option
def bench(json_file: Path | None, rounds: int, **options: Any) -> None:
    """Measure the cost of a pair: with the textbook procedure, with experiments as written, and with sweep and tail.

    In one process and in turn, so the ratios are right on a busy machine too. Without options it takes a few minutes.
    """
    if json_file and not json_file.resolve().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}; make it first", BAD_USAGE)
    if json_file:
        check_writable(json_file)
    if options["model"]:
        family_of(read_config(find_checkpoint(options["model"]).folder))
    from voicepatch.engine.bench import bench_table, run_bench
    from voicepatch.engine.bench_case import make_case

    options["seed"] = options["seed"] or 0
    result = run_bench(make_case(**options), rounds)
    click.echo(bench_table(result))
    if json_file:
        write_whole(json_file, json.dumps(result, indent=2) + "\n")
        click.echo(f"written: {json_file}")
