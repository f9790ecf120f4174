"""The cost of a pair by four procedures that compute the same numbers, and of a row of other experiments.

    result = run_bench(make_case(), rounds=2)
    result["seconds_per_pair"]["tail"]

- `textbook`: plain forward hooks, one forward a layer, the encoder in every forward.
- `stepwise`: the experiment as it is written, two nnsight traces a layer, clips encoded once.
- `sweep`, `tail`: the engines of those names, planned and fused.

In one process, procedures in turn, medians over rounds. A round starts with nothing held: what an engine encodes or
records counts. There are 5 clips in 4 pairs, a chain, as among pairs of one text.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

from voicepatch.engine.bench_case import Case
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.textbook import textbook
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.speech_lm import CausalLM, ClipInput
from voicepatch.registry.catalogue import load_intervention

PROCEDURES = ("textbook", "stepwise", "sweep", "tail")
ALL_PAIRS = ("tail",)  # the others are slow, and share nothing between pairs but the clips
STEPWISE_LAYERS = 4  # spread evenly; the others are inferred from them
ROW_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "patch": [{}],
    "mlp": [{}],
    "heads": [{"head": 0}, {"head": 1}],
    "reads": [{"k": 1}],
    "knockout": [{"k": 1}],
}
LIBRARIES = ("torch", "nnsight", "transformers", "numpy")
# torch counts every attention kernel but the processor's.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, **more: sdpa_flop_count(q, k, v)
}


def run_bench(case: Case, rounds: int = 2) -> dict[str, Any]:
    """Seconds and multiply-adds a pair by each procedure, and the largest difference between their logits.

    A round is one pair, another one in each round; of `tail` it is all pairs. `stepwise` is measured at a few layers.
    `seconds_per_row` are the time of a pair over its rows, by `tail`, for experiments that write elsewhere.
    """
    if rounds < 1:
        raise UserError(f"--rounds {rounds}: at least one is needed", BAD_USAGE)
    pairs, some = _pairs(case), _spread(case.n_layers)
    seconds: dict[str, list[float]] = {name: [] for name in PROCEDURES}
    rows: dict[str, list[float]] = {name: [] for name in ROW_OPTIONS}
    plans: list[float] = []
    peak: dict[str, int] = {}
    difference, effect = 0.0, 0.0
    with torch.inference_mode():
        for name in PROCEDURES:  # the first forwards are slower, and are not what is measured
            _run(case, name, pairs[:1], range(2))
        for number in tqdm(range(rounds), desc="bench", unit="round"):
            chosen = number % len(pairs)
            logits = {}
            for name in PROCEDURES:
                mine = pairs if name in ALL_PAIRS else pairs[chosen : chosen + 1]
                layers = some if name == "stepwise" else range(case.n_layers)
                took, found, peak[name] = _timed(case, name, mine, layers)
                inferred = _forwards(case.n_layers) / _forwards(len(layers))  # 1 but for stepwise
                seconds[name].append(took / len(mine) * inferred)
                logits[name] = found[chosen if name in ALL_PAIRS else 0]
            expected = logits["textbook"]
            effect = max(effect, _distance(expected[1:], expected[:1]))
            logits["textbook"] = expected[[0, *(1 + layer for layer in some)]]
            difference = max(difference, _distance(logits.pop("stepwise"), logits.pop("textbook")))
            difference = max(difference, *(_distance(found, expected) for found in logits.values()))
            for name in ROW_OPTIONS:
                rows[name].append(_seconds_per_row(case, name, pairs[chosen]))
            plans.append(_seconds_to_plan(case, pairs[chosen]))
        arithmetic = {name: _arithmetic(case, name, pairs) for name in PROCEDURES}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    per_row = {name: statistics.median(values) for name, values in rows.items()}
    rate = _product_rate(case.llm)
    return {
        "seconds_per_pair": medians,
        "times_as_fast_as_textbook": {name: medians["textbook"] / value for name, value in medians.items()},
        "arithmetic_per_pair": arithmetic,
        "max_abs_logit_difference": difference,
        "max_abs_effect_of_patching": effect,
        "tail_over_its_arithmetic": medians["tail"] / (arithmetic["tail"] / rate),
        "multiply_adds_per_second_of_a_large_product": rate,
        "planning_share_of_a_pair": statistics.median(plans) / medians["tail"],
        "seconds_per_row": per_row,
        "row_over_a_row_of_patch": {name: value / per_row["patch"] for name, value in per_row.items()},
        "peak_device_memory_mib": {name: value / 2**20 for name, value in peak.items()} if any(peak.values()) else None,
        "rounds": rounds,
        "stepwise_layers": len(some),
        "shape": _shape(case),
        "machine": machine(case.llm.device),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }


def _spread(n_layers: int) -> list[int]:
    """Some layers of all depths; their mean depth is that of all."""
    n = min(STEPWISE_LAYERS, n_layers)
    return [(2 * k + 1) * n_layers // (2 * n) for k in range(n)]


def _forwards(n_layers: int) -> float:
    """Forwards of `stepwise` for a pair: A's own, and for each layer one over A and one over B that ends behind it."""
    return 1 + 1.5 * n_layers


@dataclass(frozen=True)
class _Pair:
    """What makes A and B, and where their spans are, which costs a procedure nothing to know."""

    a: Callable[[], ClipInput]
    b: Callable[[], ClipInput]
    a_span: slice
    b_span: slice


def _pairs(case: Case) -> list[_Pair]:
    with torch.inference_mode():
        aligned = [align(a(), b()) for a, b in pairwise(case.clips)]
    made = zip(pairwise(case.clips), aligned, strict=True)
    return [_Pair(*clips, inputs.a_span, inputs.b_span) for clips, inputs in made]


def _timed(case: Case, name: str, pairs: list[_Pair], layers: Sequence[int]) -> tuple[float, list[torch.Tensor], int]:
    """Seconds for these pairs from nothing, their logits, and the peak of the device's memory in bytes."""
    device = case.llm.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took, logits = _clocked(device, lambda: _run(case, name, pairs, layers))
    return took, logits, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _clocked(device: torch.device, compute: Callable[[], Any]) -> tuple[float, Any]:
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    result = compute()
    synchronise()
    return time.perf_counter() - start, result


def _run(case: Case, name: str, pairs: list[_Pair], layers: Sequence[int]) -> list[torch.Tensor]:
    llm = case.llm
    if name == "textbook":
        return [
            textbook(llm, partial(_embeds, pair.a), partial(_embeds, pair.b), pair.a_span, pair.b_span, layers)
            for pair in pairs
        ]
    engine, encoded = Engine(llm, name), cache(lambda make: make())
    patch = load_intervention("patch")
    ready = [align(encoded(pair.a), encoded(pair.b)) for pair in pairs]
    return [engine.readouts(patch, pair, layers, [{}]).logits for pair in ready]


def _embeds(make: Callable[[], ClipInput]) -> torch.Tensor:
    return make().inputs_embeds


def _seconds_per_row(case: Case, name: str, pair: _Pair) -> float:
    """Seconds of a pair of an experiment over its rows, by an engine that has seen no clip of it."""
    experiment, options = load_intervention(name), ROW_OPTIONS[name]
    llm, layers = case.llm, range(case.n_layers)
    engine = Engine(llm)
    # What the engine finds out about the blocks once is not a pair's.
    engine.readouts(experiment, align(pair.a(), pair.b()), layers[:1], options)
    compute = lambda: engine.readouts(experiment, align(pair.a(), pair.b()), layers, options)  # noqa: E731
    return _clocked(llm.device, compute)[0] / (len(layers) * len(options))


def _seconds_to_plan(case: Case, pair: _Pair) -> float:
    engine, ready = Engine(case.llm), align(pair.a(), pair.b())
    for clip in (ready.a, ready.b):
        engine.record(clip)
    plan = lambda: engine.plan(load_intervention("patch"), ready, range(engine.n_layers), [{}])  # noqa: E731
    plan()
    return _clocked(engine.llm.device, plan)[0]


def _arithmetic(case: Case, name: str, pairs: list[_Pair]) -> float:
    """Multiply-adds a pair, the mean over the pairs of a round."""
    mine = pairs if name in ALL_PAIRS else pairs[:1]

    def counted(layers: Sequence[int]) -> float:
        return multiply_adds(lambda: _run(case, name, mine, layers)) / len(mine)

    if name not in ("textbook", "stepwise"):
        return counted(range(case.n_layers))
    some, none = _spread(case.n_layers), counted([])
    return none + (counted(some) - none) * case.n_layers / len(some)


def multiply_adds(compute: Callable[[], Any]) -> float:
    """Multiply-adds of the products, convolutions and attentions in `compute()`, as torch counts them."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        compute()
    return counter.get_total_flops() / 2


def _product_rate(llm: CausalLM, n: int = 2048) -> float:
    """Multiply-adds a second of a plain `n × n` product in the model's dtype, on its device."""
    device = llm.device
    n = 8192 if device.type == "cuda" else n
    x = torch.randn(n, n, device=device, dtype=llm.dtype)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        x @ x
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return n**3 / statistics.median(times)


def _shape(case: Case) -> dict[str, Any]:
    llm = case.llm
    with torch.inference_mode():
        clips = [make() for make in case.clips]
        encoder = multiply_adds(case.clips[0])
        embeds = clips[0].inputs_embeds
        decoder = multiply_adds(lambda: llm(inputs_embeds=embeds, use_cache=False, logits_to_keep=1))
    return {
        "model": case.name,
        "n_layers": case.n_layers,
        "hidden_size": llm.config.hidden_size,
        "decoder_parameters": sum(parameter.numel() for parameter in case.llm.parameters()),
        "dtype": str(llm.dtype).removeprefix("torch."),
        "positions_before_span": clips[0].span.start,
        "positions_in_span": [clip.n_audio for clip in clips],
        "positions_after_span": clips[0].readout_pos - clips[0].span.stop + 1,
        "encoder_to_decoder_arithmetic": encoder / decoder,
        "n_pairs": len(clips) - 1,
        "n_clips": len(clips),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores and device, as a reader of the figures needs them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": platform.system(),
    }


def _distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return (x - y).abs().max().item()


def bench_table(result: dict[str, Any]) -> str:
    """The result as a table, and some sentences."""
    lines = [
        f"{name:<10}{result['seconds_per_pair'][name]:>10.3g} s{result['arithmetic_per_pair'][name] / 1e9:>12,.1f} G"
        f"{result['times_as_fast_as_textbook'][name]:>9.1f} ×"
        for name in PROCEDURES
    ]
    shape, where, n_layers = result["shape"], result["machine"], result["shape"]["n_layers"]
    rate, peaks = result["multiply_adds_per_second_of_a_large_product"], result["peak_device_memory_mib"]
    memory = [f"peak of the device's memory: tail {peaks['tail']:,.0f} MiB"] if peaks else []
    place = where["device"] if where["device"] != "cpu" else f"{where['processor']}, {where['threads']} threads"
    per_row = ", ".join(f"{name} {ratio:.2f}" for name, ratio in result["row_over_a_row_of_patch"].items())
    return "\n".join(
        [
            f"{shape['model']}, {n_layers} layers of width {shape['hidden_size']}, {shape['dtype']}; {place}",
            f"{'':<10}{'a pair':>12}{'multiply-adds':>14}{'speed':>11}",
            *lines,
            f"stepwise was measured at {result['stepwise_layers']} of {n_layers} layers of all depths",
            f"largest |Δlogit| between them {result['max_abs_logit_difference']:.2g} (patching moves a logit by up to "
            f"{result['max_abs_effect_of_patching']:.2g})",
            f"tail takes {result['tail_over_its_arithmetic']:.1f} times what its arithmetic takes at the speed of a "
            f"large matrix product here ({rate / 1e9:,.0f} G a second); planning is "
            f"{result['planning_share_of_a_pair']:.1%} of a pair",
            f"a row (a layer of one pair, or a layer and a head) against a row of patch, by tail: {per_row}",
            *memory,
        ]
    )
