"""Two runs against each other, kind by kind: two models on one corpus, or one model on two.

    for line in contrast_runs({"A": Path("results/A"), "B": Path("results/B")}, Path("results/comparison")): ...

Writes contrast_KIND_A_vs_B.csv where both were patched at the same layers, and contrasts.json with the differences of
the hand-over layers; of models with different numbers of layers, on relative depth.
"""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from analysis.cells import is_one_curve, swept_columns
from analysis.contrast_kinds import ALL, Side, contrast
from analysis.metrics import read_pairs, read_records
from errors import UserError
from files import read_config, write_whole

KINDS = ("prosody", "semantic")


def contrast_runs(runs: dict[str, Path], out: Path) -> list[str]:
    """One line a kind and pair of runs that both have it: which hands over later and by how much, or why none is."""
    found, lines = {}, []
    for kind in KINDS:
        for (one, run), (other, other_run) in combinations(runs.items(), 2):
            configs = [read_config(path) for path in (run, other_run)]
            sides = _sides(kind, {one: run, other: other_run}, configs)
            if sides is None:
                continue
            key = f"{kind}: {one} − {other}"
            try:
                _refuse_unlike(kind, (one, other), configs)
                result = contrast(*sides, seed=configs[0]["experiments"][kind]["pair_sampling_seed"])
            except UserError as error:
                found[key] = {"reason": str(error)}
                lines.append(f"{key}: not contrasted: {error}")
                continue
            if not result.table.empty:
                path = out / f"contrast_{kind}_{_safe(one)}_vs_{_safe(other)}.csv"
                text = result.table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
                write_whole(path, text)
            found[key] = result.statistics
            lines.append(f"{key}: {_difference(result.statistics[ALL], relative=sides[0].depth != 1)}")
    if found:
        write_whole(out / "contrasts.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return lines


def _sides(kind: str, runs: dict[str, Path], configs: list[dict[str, Any]]) -> list[Side] | None:
    n_layers = [config["model"]["n_layers"] for config in configs]
    sides = []
    for (name, run), config, n in zip(runs.items(), configs, n_layers, strict=True):
        experiment, path = config["experiments"].get(kind, {}), run / f"patching_records_{kind}.jsonl"
        if not experiment.get("finished") or not path.exists():
            return None
        records = read_records(path)
        if not is_one_curve(swept_columns(experiment, records)):
            return None
        depth = 1.0 if n_layers[0] == n_layers[1] else max(1, n - 1)
        within = config["data"]["sha256"]  # the same texts and speakers only where the data are the same
        sides.append(Side(name, records, read_pairs(run / f"pair_list_{kind}.jsonl"), within, depth))
    return sides


def _refuse_unlike(kind: str, names: tuple[str, str], configs: list[dict[str, Any]]) -> None:
    """Relative depth means the same only where every layer was patched."""
    if configs[0]["model"]["n_layers"] == configs[1]["model"]["n_layers"]:
        return
    for name, config in zip(names, configs, strict=True):
        if not config["experiments"][kind]["patch_all_layers"]:
            raise UserError(f"{name} was not patched at all layers, and the models have different numbers of them")


def _difference(found: dict[str, Any], relative: bool) -> str:
    if found["difference"] is None:
        return f"no difference of the hand-over layers: {found['reason']}"
    unit = "of the relative depth" if relative else "layers"
    ends = ["beyond the layers" if found[end] is None else f"{found[end]:+.2g}" for end in ("low", "high")]
    interval = f" (95 % interval {ends[0]} to {ends[1]})" if found["p"] is not None else f" ({found['reason']})"
    p = f", p = {found['p']:.2g}" if found["p"] is not None else ""
    return f"hand-over {found['difference']:+.2g} {unit}{interval}{p}"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:64]
