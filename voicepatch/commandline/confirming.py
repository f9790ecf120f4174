"""`confirm`: which heads and MLPs a run's estimates rank highest, and a run of sets of them.

confirm(Path("results/RUN"), top=10, draws=5, options={})
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from voicepatch.commandline.config_file import explicit_settings
from voicepatch.commandline.running import results_of, run_each
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.runs.inherit import inherited_names
from voicepatch.store.directory import RunDir
from voicepatch.types.pair import KINDS
from voicepatch.types.setting import option_flag
from voicepatch.types.settings import stored_name


def confirm(run_path: Path, top: int, draws: int, options: Mapping[str, Any]) -> None:
    """Rank heads and MLPs by a run's estimates on half of its texts, and patch sets of the best on the other half."""
    given = explicit_settings(options)
    results = results_of(run_path)
    kind = given.get("kind", KINDS[0])
    from voicepatch.analysis.ranking import estimates_of, half_that_ranks, pairs_among, ranked, sets_of, too_few

    by = estimates_of(results, kind)
    if by is None:
        for error in results.invalid.values():  # it may be that of the estimates
            raise error
        others = any(one.is_estimate and one.kind == kind for one in results.valid)
        raise UserError(
            f"{run_path}: holds no finished estimates of {'several heads in ' * others}{kind} pairs; run "
            f"python cli.py attribution --pairs {kind} --out {run_path}"
        )
    half = half_that_ranks(by)
    ranking = pairs_among(by.measured_pairs, half)
    rest = pairs_among(by.pairs, {*by.pairs["text_id_a"], *by.pairs["text_id_b"]} - half)
    if ranking.empty:
        raise UserError(
            f"{run_path}: no pair of {by.name} has all its texts in one half of them; take more pairs or texts"
        )
    names = ranked(by.records, ranking["pair_id"])
    sets = sets_of(names, top, draws, by.seed)
    stored = {name: by.settings[stored_name(name, kind)] for name in inherited_names("by all")}
    chosen_here = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    chosen_here["out"] = run_path
    for name, value in chosen_here.items():
        if given.get(name, value) != value:
            chosen = f"{option_flag(name)} {given[name]}"
            as_before = f"confirm runs in {run_path} as {by.name} did, with {value}"
            raise UserError(f"{chosen}: {as_before}; leave it out", BAD_USAGE)
    chosen_here |= {"components": tuple(sets), "at": by.settings["options"]["at"], "top": (top,), "draws": (draws,)}
    click.echo(f"{by.name}: ranked on {len(ranking)} pairs of {len(half)} texts; best: {', '.join(names[:top])}")
    warnings = [*too_few("ranked on", ranking), *too_few("patched in", rest)]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    run_each(["ranked"], options, chosen_here | {"kind": kind})
    document = {"ranked_by": by.name, "texts": sorted(half), "n_pairs": len(ranking), "best": names[:top]}
    RunDir(run_path).update_json("confirm.json", kind, document | {"warnings": warnings})
