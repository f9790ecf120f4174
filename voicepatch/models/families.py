"""The families that can be studied, and how a checkpoint's family is recognised. No torch here.

    family = family_of(read_config(folder))         # or UserError, with the list of families
    model = family.load(folder, "cpu", "float32", question, labels)

`python cli.py models` lists the built-in families, which are declared here, and those of plugins.
"""

from importlib import import_module
from typing import Any

from voicepatch.errors import UserError
from voicepatch.models.family import PROCESSOR_FILES, TOKENIZER_FILES, Config, Family, declared_families, families
from voicepatch.paths import ROOT


def _declare(name: str, summary: str, model: str, **facts: Any) -> None:
    """Declare a built-in family whose `SpeechLM` is the class `model`, given as `module.Class` of this folder."""
    module, _, cls = model.partition(".")

    def load(*args: Any) -> Any:
        return getattr(import_module(f"voicepatch.models.{module}"), cls).load(*args)

    def without_weights(*args: Any) -> Any:
        return getattr(import_module(f"voicepatch.models.{module}"), cls).without_weights(*args)

    where = f"{ROOT / 'voicepatch' / 'models' / module}.py:1"
    given: dict[str, Any] = {"input_files": PROCESSOR_FILES, "without_weights": without_weights} | facts
    families.add(name, Family(name, summary, load, where, **given), where)


_declare(
    "OpenS2S",
    "a Whisper-like encoder, a convolutional adapter and a Qwen3 decoder.",
    "opens2s_io.OpenS2SLM",
    recognises=lambda config: "llm_config" in config or "audio_encoder_config" in config,
    hub_ids=("CASIA-LM/OpenS2S",),
    licence="Apache-2.0",
    frames_per_second=6.25,
    max_audio_length="all",
    layers="36",
    parts=("audio_encoder_model.", "audio_adapter.", "llm_model."),
    input_files=(*TOKENIZER_FILES, "audio/*.json"),
)
_declare(
    "Audio Flamingo 3",
    "a Whisper-like encoder, a projector and a Qwen2 decoder.",
    "audio_flamingo3.AudioFlamingo3",
    model_types=("audioflamingo3",),
    hub_ids=("nvidia/audio-flamingo-3-hf",),
    licence="NVIDIA, non-commercial",
    frames_per_second=25.0,
    max_audio_length="600 s",
    layers="28",
)
_declare(
    "Gemma 4 12B",
    "a linear layer over raw samples and a Gemma 4 decoder, of whose blocks five of six have a window.",
    "gemma4_unified.Gemma4Unified",
    model_types=("gemma4_unified",),
    hub_ids=("google/gemma-4-12B-it",),
    licence="Apache-2.0",
    frames_per_second=25.0,
    max_audio_length="all",
    layers="48",
)
_declare(
    "Granite Speech",
    "a conformer, a Q-Former and a Granite decoder.",
    "granite_speech.GraniteSpeech",
    model_types=("granite_speech",),
    hub_ids=(
        "ibm-granite/granite-speech-3.3-2b",
        "ibm-granite/granite-speech-3.3-8b",
        "ibm-granite/granite-4.0-1b-speech",
    ),
    licence="Apache-2.0",
    frames_per_second=10.0,
    max_audio_length="all",
    layers="40",
    adapter="",
)
_declare(
    "Granite Speech plus",
    "Granite Speech whose Q-Former also reads earlier blocks of the conformer.",
    "granite_speech.GraniteSpeechPlus",
    model_types=("granite_speech_plus",),
    hub_ids=("ibm-granite/granite-speech-4.1-2b-plus",),
    licence="Apache-2.0",
    frames_per_second=10.0,
    max_audio_length="all",
    layers="40",
    adapter="",
)
_declare(
    "Music Flamingo",
    "Audio Flamingo 3 with the time of each frame, for music.",
    "music_flamingo.MusicFlamingo",
    model_types=("musicflamingo",),
    hub_ids=("nvidia/music-flamingo-2601-hf",),
    licence="NVIDIA, non-commercial",
    frames_per_second=25.0,
    max_audio_length="1200 s",
    layers="28",
)
_declare(
    "Phi-4-multimodal",
    "a conformer, a projector and a Phi-4-mini decoder with a LoRA for speech.",
    "phi4_multimodal.Phi4Multimodal",
    model_types=("phi4_multimodal",),
    hub_ids=("microsoft/Phi-4-multimodal-instruct",),
    licence="MIT",
    frames_per_second=12.5,
    max_audio_length="all",
    layers="32",
    adapter="speech-lora",
    revisions={"microsoft/Phi-4-multimodal-instruct": "refs/pr/70"},  # main is not in transformers' layout
)
_declare(
    "Qwen2-Audio",
    "Whisper's encoder with a pool, a linear projector and a Qwen2 decoder.",
    "qwen2_audio.Qwen2Audio",
    model_types=("qwen2_audio",),
    hub_ids=("Qwen/Qwen2-Audio-7B-Instruct",),
    licence="Apache-2.0",
    frames_per_second=25.0,
    max_audio_length="30 s",
    layers="32",
)
_declare(
    "Qwen2.5-Omni",
    "the thinker, an encoder in blocks of 2 s and a Qwen2 decoder.",
    "qwen25_omni.Qwen25Omni",
    model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
    hub_ids=("Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen2.5-Omni-3B"),
    licence="Apache-2.0 (3B: its own)",
    frames_per_second=25.0,
    max_audio_length="300 s",
    layers="28, 36",
    skips=("talker.", "token2wav."),
)
_declare(
    "Qwen3-Omni",
    "the thinker, an encoder in windows and a Qwen3 decoder with experts.",
    "qwen3_omni.Qwen3Omni",
    model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
    hub_ids=("Qwen/Qwen3-Omni-30B-A3B-Instruct",),
    licence="Apache-2.0",
    frames_per_second=13.0,
    max_audio_length="all",
    layers="48",
    skips=("talker.", "code2wav."),
)
_declare(
    "Voxtral",
    "Whisper's encoder over whole windows of 30 s and a Llama decoder.",
    "voxtral.Voxtral",
    model_types=("voxtral",),
    hub_ids=("mistralai/Voxtral-Mini-3B-2507", "mistralai/Voxtral-Small-24B-2507"),
    licence="Apache-2.0",
    frames_per_second=12.5,
    max_audio_length="all",
    layers="30, 40",
    input_files=("tekken.json", "preprocessor_config.json", "processor_config.json"),
)

PER_LAYER = (
    "its per-layer inputs bring A's sound in again at every block, so writing B's residual stream at one of them does "
    "not give A's later blocks B's sound"
)
STATE_SPACE = (
    "Most of its blocks are state-space or expert layers and have no attention, while experiments here read and write "
    "the attention of every block"
)
TRANSCRIBES = "It writes down what is said and answers no question about the sound"
NO_POSITIONS = f"{TRANSCRIBES}, and its decoder reads the sound by cross-attention, not at positions of its own"
NO_DECODER = f"{TRANSCRIBES}, and it has no language model"
GENERATES_SOUND = "It generates sound and answers no question in text"
COMPARES = "It compares sounds with texts and writes no answer"
TOO_LARGE = "With {} billion values, its weights are too large for one machine"
# Model types of transformers 5.23 that read sound and are no family here, with the reason.
REFUSED = {
    "phi4mm": "Its layout needs code from the checkpoint, which is not run. Take transformers' own layout, revision "
    "refs/pr/70, which --model microsoft/Phi-4-multimodal-instruct fetches",
    "gemma3n": f"Gemma 3n: {PER_LAYER}",
    "gemma4": f"Gemma 4 E2B and E4B: {PER_LAYER}",
    **dict.fromkeys(("nemotron_h_omni", "NemotronH_Omni_Reasoning_V3"), STATE_SPACE),
    **dict.fromkeys(("fun_asr_nano", "glmasr", "kyutai_speech_to_text", "moss_transcribe_diarize"), TRANSCRIBES),
    **dict.fromkeys(("nemo_speechlm", "qwen3_asr", "vibevoice_asr", "voxtral_realtime"), TRANSCRIBES),
    **dict.fromkeys(("canary", "cohere_asr", "moonshine", "moonshine_streaming", "speecht5", "whisper"), NO_POSITIONS),
    **dict.fromkeys(("seamless_m4t", "seamless_m4t_v2", "speech-encoder-decoder", "speech_to_text"), NO_POSITIONS),
    **dict.fromkeys(("granite_speech5_ctc", "lasr_ctc", "nemotron3_5_asr", "nemotron_asr_streaming"), NO_DECODER),
    **dict.fromkeys(("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt"), NO_DECODER),
    **dict.fromkeys(("bark", "clvp", "csm", "dia", "gradium_phonon_tts", "higgs_audio_v2"), GENERATES_SOUND),
    **dict.fromkeys(("moshi", "musicgen", "musicgen_melody", "pocket_tts", "pop2piano", "vibevoice"), GENERATES_SOUND),
    **dict.fromkeys(("clap", "embedding_gemma2", "pe_audio", "pe_audio_video"), COMPARES),
    "dots3_note": TOO_LARGE.format(287),
    "muse_spark": TOO_LARGE.format(822),
    "inkling_mm_model": TOO_LARGE.format(1740),
}


def family_of(config: Config) -> Family:
    """The family of a checkpoint by its `config.json`; `UserError` for one that is unknown or cannot be exact."""
    model_type, families = config.get("model_type"), declared_families()
    found = [family for family in families if isinstance(model_type, str) and model_type in family.model_types]
    found = found or [family for family in families if family.recognises and family.recognises(config)]
    if len(found) > 1:
        both = " and ".join(f"{family.name} ({family.where})" for family in found)
        raise UserError(f"config.json is recognised by {both}; change recognises= of one of them")
    if found:
        return found[0]
    if isinstance(model_type, str) and model_type in REFUSED:
        raise UserError(f"config.json: model_type {model_type!r} cannot be studied here. {REFUSED[model_type]}")
    known = ", ".join(family.name for family in families)
    raise UserError(
        f"config.json: model_type {str(model_type)[:40]!r} is of no known family ({known}); `python cli.py models` "
        "lists them, and --plugin adds another one (docs/own-model.md)"
    )
