"""The number of workers, what each gets of the machine, and where the cluster is."""

import importlib.util

import pytest
from click.testing import CliRunner

from cli import cli
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.types.settings import Settings
from voicepatch.workers import cluster
from voicepatch.workers import resources as resources_module
from voicepatch.workers.resources import resources


class TestResources:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        """One of 16 cores without a GPU."""
        monkeypatch.setattr(resources_module, "count_cores", lambda: 16)
        monkeypatch.setattr(resources_module, "count_gpus", lambda: 0)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    @pytest.mark.parametrize(
        ("workers", "threads", "expected"), [(4, None, (4, 4)), (None, None, (16, 1)), (None, "4", (4, 4))]
    )
    def test_cores_are_shared_out(self, monkeypatch, workers, threads, expected):
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        need = resources(workers, None)
        assert (need.n_workers, need.threads) == expected and need.device == "cpu" and need.gpus == 0

    def test_a_worker_has_a_gpu_where_there_are_some(self, monkeypatch):
        monkeypatch.setattr(resources_module, "count_gpus", lambda: 8)
        need = resources(None, None)
        assert (need.n_workers, need.device, need.gpus) == (8, "cuda", 1)
        assert resources(3, "cuda").n_workers == 3 and resources(2, "cpu").device == "cpu"
        assert resources(None, None, {"GPU": 16.0, "CPU": 128.0}).n_workers == 16

    @pytest.mark.parametrize(
        ("workers", "device", "there", "words"),
        [
            (20, None, None, ["--workers 20", "this machine has 16 cores", "the maximum is 16"]),
            (None, "cuda", None, ["--device cuda", "this machine has no GPU"]),
            (2, "cuda:1", None, ["--device cuda:1", "a GPU of its own"]),
            (
                3,
                None,
                {"GPU": 2.0, "CPU": 8.0},
                ["--workers 3", "the cluster has 2 GPUs", "the maximum is 2"],
            ),
            (None, "cuda", {"CPU": 8.0}, ["--device cuda", "the cluster has no GPU"]),
        ],
    )
    def test_more_workers_than_the_machine_has_room_for_are_an_error(self, workers, device, there, words):
        with pytest.raises(UserError) as caught:
            resources(workers, device, there)
        assert caught.value.status == BAD_USAGE and not [word for word in words if word not in str(caught.value)]


class TestCommand:
    def fails(self, *args, status=2):
        result = CliRunner().invoke(cli, ["patch", "--no-need", "--kind", "prosody", *args])
        assert result.exit_code == status, result.output
        return result.output.strip().splitlines()[-1]

    @pytest.mark.parametrize("args", [("--workers", "2"), ("--workers", "auto"), ("--ray", "auto")])
    def test_without_ray_the_message_is_how_to_install_it(self, monkeypatch, tmp_path, args):
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "ray" else find(name))
        line = self.fails(*args, "--out", str(tmp_path / "run"))
        assert line == f"error: {' '.join(args)} needs Ray: python -m pip install -r requirements-ray.txt"
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("workers", ["-1", "two", "1.5", "99999", ""])
    def test_an_impossible_number_of_workers_is_an_error(self, workers):
        assert "is not a whole number (0<=x<=1000) or auto" in self.fails("--workers", workers)

    def test_a_cluster_without_workers_is_an_error(self):
        assert "--workers 0" in self.fails("--workers", "0", "--ray", "auto")

    def test_they_can_stand_in_the_settings_file(self, tmp_path):
        file = tmp_path / "settings.yaml"
        file.write_text("workers: 99999\nray: auto\n", encoding="utf-8")
        assert "is not a whole number (0<=x<=1000) or auto" in self.fails("--config", str(file))
        file.write_text("workers: true\n", encoding="utf-8")
        assert "True is not a whole number" in self.fails("--config", str(file))

    def test_a_run_does_not_store_the_number_of_workers_among_the_settings(self):
        assert not {"workers", "ray"} & set(Settings(workers=2, ray="auto").recorded())


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:99999", "host:port"])
def test_text_that_is_not_an_address_is_an_error(address):
    with pytest.raises(UserError, match="write auto, or HOST:PORT"):
        cluster.check_reachable(address)


def test_a_token_is_used_where_there_is_one_and_no_other_setting(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster.token_mode() == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret", encoding="utf-8")
    assert cluster.token_mode() == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert cluster.token_mode() == "disabled"


def test_an_address_where_nothing_answers_is_one_line_at_once():
    with pytest.raises(UserError, match="nothing answers there"):
        cluster.check_reachable("127.0.0.1:9")
