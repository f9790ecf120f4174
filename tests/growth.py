"""How the cost of each stage grows with clips and records: `python -m tests.growth` prints the tables of docs/scale.md.

    python -m tests.growth                                    # about ten minutes on two cores
    python -m tests.growth --clips 17500 --records 137520 --kind prosody      # the 34,380 pairs of ESD

The corpus is made for it: 10 speakers say each text in 5 voices, and a clip is 0.3 s of noise. Records come from a tiny
checkpoint with random weights and 4 layers, in equal parts from prosody and semantic pairs. Each column is measured in
a process of its own, in processor seconds, so that a busy machine changes little.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import soundfile

KINDS = ("prosody", "semantic")
LABELS = ("neutral", "happy", "sad", "angry", "surprised")
SPEAKERS, N_LAYERS = 10, 4
RATE, SECONDS = 16_000, 0.3
MOST_PAIRS = 34_380  # that are drawn; the prosody pairs of ESD
ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("clip_id", "path", "text_id", "text", "semantic_label", "prosody_label", "speaker")
Row = dict[str, float]


def make_corpus(folder: Path, n_clips: int) -> Path:
    """A manifest of `n_clips` clips of noise, 50 a text; each file is another sound."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number in range(n_clips):
            text, speaker, voice = number // (SPEAKERS * len(LABELS)), number // len(LABELS) % SPEAKERS, number % 5
            name = f"{text:03d}-{speaker}-{LABELS[voice]}"
            sound = draw.normal(0, 0.1, round(RATE * SECONDS)).astype(np.float32)
            soundfile.write(folder / f"{name}.wav", sound, RATE)
            words = LABELS[text % len(LABELS)]
            rows.writerow((name, f"{name}.wav", f"t{text:03d}", f"Sentence {text}.", words, LABELS[voice], speaker))
    return folder / "manifest.csv"


@contextmanager
def timed(found: Row, stage: str) -> Iterator[None]:
    """Add the processor seconds of a block, of all threads, to `found`."""
    start = time.process_time()
    yield
    found[stage] = round(time.process_time() - start, 2)


def peak_memory() -> float:
    """The largest resident memory of this process so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure_clips(manifest: Path) -> Row:
    """The cost of loading a corpus, of its hash, and of listing and drawing pairs of both kinds."""
    from pairs import build_pairs, dataset_identity, load_dataset

    found: Row = {}
    with timed(found, "load clips"):
        dataset = load_dataset(manifest)
    with timed(found, "hash clips"):
        dataset_identity(dataset)
    for kind in KINDS:
        with timed(found, f"{kind} pairs"):
            sample = build_pairs(dataset.clips, kind, MOST_PAIRS)
        found[f"{kind} pairs possible"] = sample.report["pairs_possible"]
    return found | {"peak memory, MB": peak_memory()}


def measure_records(manifest: Path, run: Path, n_records: int, kinds: Sequence[str]) -> Row:
    """The cost of each stage of the main experiments on `kinds` of pairs, with `n_records` records in all."""
    import torch

    from pairs import build_pairs, load_dataset
    from tests.models.families.builders import phi4_multimodal
    from voicepatch.analysis.results import Results
    from voicepatch.analysis.words_and_voice import contrast_of
    from voicepatch.engine.subject import load_subject
    from voicepatch.registry.catalogue import load_intervention
    from voicepatch.report import write_report
    from voicepatch.report.summary import summarise
    from voicepatch.runs.executor import LocalExecutor
    from voicepatch.runs.experiment import run_experiment
    from voicepatch.store.directory import RunDir
    from voicepatch.types.settings import Settings

    torch.set_num_threads(1)
    if not (checkpoint := run.parent / "checkpoint").exists():
        checkpoint.mkdir()
        phi4_multimodal(checkpoint, N_LAYERS)
    dataset, subject, patch = load_dataset(manifest), load_subject(checkpoint), load_intervention("patch")
    found: Row = {}
    n_pairs = n_records // N_LAYERS // len(kinds)
    with timed(found, "checks, pair loop, writing"):
        for kind in kinds:
            sample = build_pairs(dataset.clips, kind, n_pairs)
            settings = Settings(kind, max_pairs=n_pairs)
            with RunDir(run).in_use():
                run_experiment(
                    LocalExecutor(subject), dataset, RunDir(run), patch, sample, settings, log=lambda line: None
                )
    found["memory after the loop, MB"] = peak_memory()
    with timed(found, "read"):
        results = Results(run)
        mains = [results.experiment(name) for name in results.names]
    with timed(found, "statistics"):
        for main in mains:
            _ = main.metrics
            results.hand_over(main.kind)
        results.cached(contrast_of)
    with timed(found, "figures"):
        for main in mains:
            summarise(results, main.name)
    with timed(found, "report"):
        report = write_report(results)
    return found | {"peak memory, MB": peak_memory(), "report.html, MB": round(report.stat().st_size / 1e6, 1)}


def in_process(*arguments: str) -> Row:
    """What this script finds in a process of its own."""
    command = [sys.executable, "-m", "tests.growth", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"TQDM_DISABLE": "1"})
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments)}: ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def table(title: str, columns: dict[int, Row]) -> str:
    """A Markdown table with a line a stage, and how many times the last column is the one before it."""
    sizes = list(columns)
    head = [title, *(f"{size:,}" for size in sizes), *(["growth of the last step"] if len(sizes) > 1 else [])]
    lines = [head, ["---"] * len(head)]
    for stage in columns[sizes[0]]:
        values = [columns[size][stage] for size in sizes]
        ratio = [f"{values[-1] / values[-2]:.1f}" if values[-2] else ""] if len(values) > 1 else []
        lines.append([stage, *(f"{value:,.12g}" for value in values), *ratio])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(n_clips: Sequence[int], n_records: Sequence[int], kinds: Sequence[str], folder: Path) -> Iterator[str]:
    """The two tables; runs and corpora are made in `folder`."""
    manifests = {n: make_corpus(folder / f"clips-{n}", n) for n in n_clips}
    yield table("clips", {n: in_process("--of-clips", str(manifests[n])) for n in n_clips})
    largest = manifests[max(n_clips)]
    columns = {}
    for n in n_records:
        click.echo(f"{n:,} records ...", err=True)
        columns[n] = in_process(
            "--of-records", str(largest), str(folder / f"run-{n}"), str(n), *_repeated("--kind", kinds)
        )
    yield table("records", columns)


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


@click.command()
@click.option("--clips", type=int, multiple=True, default=(1_100, 4_400, 17_500), show_default=True)
@click.option("--records", type=int, multiple=True, default=(1_000, 4_000, 16_000, 64_000), show_default=True)
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Make corpora and runs here and leave them there.")
@click.option("--of-clips", type=click.Path(path_type=Path), hidden=True)
@click.option("--of-records", nargs=3, type=str, hidden=True)
def main(
    clips: tuple[int, ...],
    records: tuple[int, ...],
    kinds: tuple[str, ...],
    keep: Path | None,
    of_clips: Path | None,
    of_records: tuple[str, str, str] | None,
) -> None:
    """Measure how the cost of each stage grows with the number of clips and of records."""
    if of_clips:
        click.echo(json.dumps(measure_clips(of_clips)))
    elif of_records:
        manifest, run, n_records = of_records
        click.echo(json.dumps(measure_records(Path(manifest), Path(run), int(n_records), kinds)))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            for text in measure(clips, records, kinds, keep or Path(temporary)):
                click.echo(f"{text}\n")


if __name__ == "__main__":
    main()
