"""Loads an OpenS2S checkpoint."""

from voicepatch.models.opens2s import load_model

WINDOW = 3000
NEEDED = ("audio_encoder_model.", "audio_adapter.", "llm_model.")


def load(checkpoint, dtype="float32"):
    return load_model(checkpoint.folder, "cpu", dtype)
