"""Two runs against each other, kind by kind: two models on one corpus, or one model on two.

    for line in contrast_runs({"A": Results(a), "B": Results(b)}, Path("results/comparison")): ...

Writes contrast_KIND_A_vs_B.csv where both were patched at the same layers, and contrasts.json with the differences of
the areas under the curves; of models with different numbers of layers, on relative depth.
"""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrasts import ALL, Side, contrast
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import p_text, with_interval
from voicepatch.errors import UserError
from voicepatch.files import write_whole


def contrast_runs(runs: dict[str, Results], out: Path) -> list[str]:
    """One line a kind and two runs that have it: the difference of the areas under the curves, or why there is none."""
    found, lines = {}, []
    for kind in KINDS:
        for one, other in combinations([name for name, results in runs.items() if results.main(kind)], 2):
            both = {name: runs[name] for name in (one, other)}
            key = f"{kind}: {one} − {other}"
            try:
                _require_all_layers(kind, both)
                first, second = sides = _sides(kind, both)
                result = contrast(first, second, seed=runs[one].main(kind).seed)
            except UserError as error:
                found[key] = {"reason": str(error)}
                lines.append(f"{key}: not contrasted: {error}")
                continue
            if not result.table.empty:
                write_table(out / f"contrast_{kind}_{_safe(one)}_vs_{_safe(other)}.csv", result.table)
            found[key] = result.statistics
            lines.append(f"{key}: {_difference(result.statistics[ALL], relative=sides[0].depth != 1)}")
    if found:
        write_whole(out / "contrasts.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return lines


def _sides(kind: str, runs: dict[str, Results]) -> list[Side]:
    n_layers = [results.config["model"]["n_layers"] for results in runs.values()]
    sides = []
    for (name, results), n in zip(runs.items(), n_layers, strict=True):
        main = results.main(kind)
        within = results.config["data"]["sha256"]  # the same texts and speakers only where the data are the same
        depth = 1.0 if n_layers[0] == n_layers[1] else max(1, n - 1)
        if main.side.records.empty:
            raise UserError(f"{name}: {NONE_LEFT}")
        sides.append(replace(main.side, name=name, within=within, depth=depth))
    return sides


def _require_all_layers(kind: str, runs: dict[str, Results]) -> None:
    """Relative depth means the same only where every layer was patched."""
    if len({results.config["model"]["n_layers"] for results in runs.values()}) == 1:
        return
    for name, results in runs.items():
        if not results.main(kind).settings["patch_all_layers"]:
            raise UserError(f"{name} was not patched at all layers, and the models have different numbers of them")


def _difference(found: dict[str, Any], relative: bool) -> str:
    if found["difference"] is None:
        return f"no difference of the areas under the curves: {found['reason']}"
    unit = "of the relative depth" if relative else "layers"
    value, interval = with_interval(found["difference"], found["low"], found["high"], "+")
    remark = f"{interval}, {p_text(found['p'])}" if interval else found["reason"]
    return f"difference of the areas under the curves {value} {unit} ({remark})"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:64]
