"""Of a checkpoint on the hub, the files that are read are fetched and nothing else."""

import shutil

import pytest
import torch
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from voicepatch.models.folder import checkpoint_folder
from voicepatch.models.opens2s import load_model


@pytest.fixture
def hub(monkeypatch, tmp_path, checkpoint):
    """A hub with one repository: a sharded checkpoint, its pickled twin, and the speech decoder's folder."""
    checkpoint.shard()
    for name in (
        "speech.safetensors",
        "pytorch_model.bin",
        "README.md",
        "tokenizer.json",
        "merges.txt",
        "chat_template.jinja",
        "audio/weights.bin",
        "tts/config.json",
        "tts/vocabulary.txt",
        "tts/model.safetensors",
    ):
        path = checkpoint.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")

    def snapshot_download(repo_id, *, allow_patterns=None, ignore_patterns=None):
        assert repo_id == "CASIA-LM/OpenS2S"
        there = [str(path.relative_to(checkpoint.folder)) for path in checkpoint.folder.rglob("*") if path.is_file()]
        for name in filter_repo_objects(there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint.folder / name, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return checkpoint


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


SMALL_FILES = {
    "config.json",
    "tokenizer.json",
    "merges.txt",
    "chat_template.jinja",
    "audio/preprocessor_config.json",
}


def test_a_hub_id_fetches_what_is_read_and_nothing_else(hub, model):
    folder = checkpoint_folder("CASIA-LM/OpenS2S")
    assert files(folder) == SMALL_FILES | {
        "model.safetensors.index.json",
        "a.safetensors",
        "b.safetensors",
    }
    loaded = load_model("CASIA-LM/OpenS2S", "cpu", "float32").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_a_checkpoint_in_one_file_is_fetched_too(hub):
    hub.index.unlink()
    hub.save()
    assert files(checkpoint_folder("CASIA-LM/OpenS2S")) == SMALL_FILES | {"model.safetensors"}


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("Got: ConnectError: no network\nAn error happened while trying to locate the files"),
        HTTPError("timed out"),
        OSError(28, "No space left on device"),
        ConnectionError(),
    ],
)
def test_without_a_network_the_message_names_the_files_and_their_folder(monkeypatch, refused, error):
    def snapshot_download(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    needed = ("config.json", "safetensors", "index.json", "tokenizer", "audio/preprocessor_config.json")
    with refused("--model CASIA-LM/OpenS2S", *needed, "into one folder", "--model FOLDER"):
        load_model("CASIA-LM/OpenS2S", "cpu")


@pytest.mark.parametrize("source", ["OpenS2S", "a/b/c", "./nowhere", "../nowhere", "/nowhere", "~/nowhere"])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(monkeypatch, refused, source):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: pytest.fail("asked the hub"))
    with refused(source, "no such folder"):
        load_model(source, "cpu")


def test_a_folder_name_that_cannot_be_a_hub_id_is_an_error(refused):
    with refused("--model my models/OpenS2S"):
        load_model("my models/OpenS2S", "cpu")
