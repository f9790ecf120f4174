"""All that is to be shown on a GPU, in one command: `make gpu-test`.

    python -m tests.gpu                 # needs a CUDA device; writes docs/gpu.json and the table in docs/engines.md

Tests of engines, experiments and families in float32 and bfloat16; the benchmark at OpenS2S's real size; and 20 pairs
end to end on a model of that size with random weights, from the sound to the records.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interventions import load_intervention
from pairs import build_pairs, load_dataset
from voicepatch.engine.bench import machine, run_bench
from voicepatch.engine.bench_case import FULL_SIZE, random_case
from voicepatch.engine.subject import load_subject
from voicepatch.files import write_whole
from voicepatch.models.devices import DTYPES
from voicepatch.models.opens2s import OpenS2S, OpenS2SConfig
from voicepatch.models.opens2s_io import OpenS2SLM
from voicepatch.paths import DEMO_DATA, DEMO_MODEL
from voicepatch.runs.pair_loop import run_table
from voicepatch.types.task import default_task

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- gpu: written by make gpu-test -->", "<!-- end of gpu -->"
DEMO_ENCODER = {"num_mel_bins": 80, "max_source_positions": 250}  # what the demo's front end gives


@dataclass(frozen=True)
class Plan:
    """What is run: on which device and in which dtypes, with which shape, which tests, and how many pairs."""

    device: str = "cuda:0"
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    config: Any = None
    tests: tuple[str, ...] = ("tests/test_hardware.py",)
    n_pairs: int = 20
    rounds: int = 2


def run(plan: Plan) -> dict[str, Any]:
    """The numbers of docs/gpu.json."""
    config, dtype = plan.config or FULL_SIZE, plan.dtypes[-1]
    device = torch.device(plan.device)
    tests = {name: run_tests(plan, name) for name in plan.dtypes}
    bench = run_bench(random_case(config, device, DTYPES[dtype]), plan.rounds)
    return {
        "machine": machine(device),
        "torch": torch.__version__,
        "tests": tests,
        "bench": bench,
        "end_to_end": end_to_end(config, plan.device, dtype, plan.n_pairs),
    }


def run_tests(plan: Plan, dtype: str) -> dict[str, Any]:
    """Whether the tests pass in a dtype, and pytest's last line."""
    there = {"VOICEPATCH_TEST_DEVICE": plan.device, "VOICEPATCH_TEST_DTYPE": dtype}
    command = [sys.executable, "-m", "pytest", "--tb=short", *plan.tests]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | there, capture_output=True, text=True)
    print(done.stdout[-3000:], flush=True)
    return {"passed": done.returncode == 0, "summary": done.stdout.strip().splitlines()[-1]}


def end_to_end(config: dict[str, Any], device: str, dtype: str, n_pairs: int) -> dict[str, Any]:
    """Pairs of the demo's clips on a model of random weights: its seconds, and the peak of the device's memory."""
    config = config | {"audio_encoder_config": config["audio_encoder_config"] | DEMO_ENCODER}
    made, task = OpenS2SConfig.from_checkpoint(config), default_task()
    torch.manual_seed(0)
    with torch.device(device):
        outer = OpenS2S._from_config(made, dtype=DTYPES[dtype]).eval().requires_grad_(False)
    model = OpenS2SLM(outer, OpenS2SLM.read_features(DEMO_MODEL, made))
    prompt = OpenS2SLM.read_prompt(DEMO_MODEL, made, task.asked(), task.texts)
    subject = load_subject(model=model._with(*prompt))
    pairs = build_pairs(load_dataset(DEMO_DATA).clips, "prosody", n_pairs).pairs
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    table = run_table(subject, load_intervention("patch"), pairs)
    return {
        "n_pairs": len(pairs),
        "n_records": len(table),
        "seconds": time.perf_counter() - start,
        "peak_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None,
    }


def table_of(found: dict[str, Any]) -> str:
    """The table of docs/engines.md."""
    bench, whole = found["bench"], found["end_to_end"]
    lines = ["| procedure | a pair | multiply-adds a pair | speed |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {seconds:.3g} s | {bench['arithmetic_per_pair'][name] / 1e9:,.0f} G | "
        f"{bench['times_as_fast_as_textbook'][name]:.1f} × |"
        for name, seconds in bench["seconds_per_pair"].items()
    ]
    shape = bench["shape"]
    tests = "; ".join(f"{dtype}: {one['summary'].strip('= ')}" for dtype, one in found["tests"].items())
    peak = f", at most {whole['peak_mib'] / 1024:.1f} GiB of the device" if whole["peak_mib"] else ""
    return "\n".join(
        [
            *lines,
            "",
            f"*{found['machine']['device']}, torch {found['torch']}; {shape['n_layers']} layers of width "
            f"{shape['hidden_size']}, {shape['dtype']}. `tail` takes {bench['tail_over_its_arithmetic']:.1f} times "
            "what its arithmetic would take at the speed of a large matrix product. "
            f"{whole['n_pairs']} pairs end to end: {whole['seconds']:.1f} s{peak}. Tests on the device, {tests}.*",
        ]
    )


def write(found: dict[str, Any], docs: Path) -> None:
    """Write gpu.json, and the table between its markers in engines.md."""
    write_whole(docs / "gpu.json", json.dumps(found, indent=2) + "\n")
    page = docs / "engines.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_whole(page, f"{before}{BEGIN}\n{table_of(found)}\n{END}{after}")


def main(plan: Plan, docs: Path) -> int:
    """The exit status: 1 where there is no such device, or a test fails."""
    if plan.device != "cpu" and not torch.cuda.is_available():
        print("gpu-test: there is no CUDA device on this machine, so nothing was run", file=sys.stderr)
        return 1
    found = run(plan)
    write(found, docs)
    print(table_of(found))
    return 0 if all(one["passed"] for one in found["tests"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(Plan(), ROOT / "docs"))
