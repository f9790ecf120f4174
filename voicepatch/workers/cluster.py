"""A Ray of one's own on this machine, or a cluster that runs already.

    with own_ray(n_cpus=2, n_gpus=0) as ray: ...           # reachable from this machine only; ends with the block
    with joined_ray("10.0.0.1:6379", log=print) as ray: ...

The only module that imports Ray: Ray reads the environment variables below when it is imported and when it starts.
"""

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import ROOT
from voicepatch.registry.plugins import plugins
from voicepatch.registry.sources import own_files
from voicepatch.runs.interrupt import until_done
from voicepatch.runs.log import Log

PROGRAM = ("voicepatch", "pairs", "interventions", "tasks")  # the folders that a cluster's machines need
CONNECT_SECONDS = 5  # Ray itself tries for two minutes
OBJECT_STORE = 100 << 20  # bytes; records are small, and Ray's default is 30 % of the memory
MAX_FOLDER = 40  # characters; the path of a socket below this folder may have 107 at most
STARTING = b"\nstopping when Ray has started; once more stops at once\n"
ENDING = b"\nstopping when Ray has ended\n"
SAME_TOKEN = "do the cluster and this machine have the same token (~/.ray/auth_token), or none?"
# Ray listens on all network interfaces, except where this variable marks the machine as a Mac or Windows machine.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
# In the environment, since Ray would write it to a file in the home directory that other users may read.
PRIVATE_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def own_ray(n_cpus: int, n_gpus: int) -> Iterator[Any]:
    """Gives `ray`, started on this machine; `UserError` where it does not start."""
    temporary = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray-", dir=temporary if len(temporary) <= MAX_FOLDER else "/tmp")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        with _environment({"PYTHONPATH": path, **PRIVATE_TOKEN, **LOOPBACK, **NO_STATISTICS}):
            yield from _connected(
                "--workers",
                address="local",
                num_cpus=n_cpus,
                num_gpus=n_gpus,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                _temp_dir=folder,
            )
    finally:
        _end_helpers(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_helpers(folder: str) -> None:
    """End what is left of the Ray with its files in `folder`: two helpers outlive it after a signal while it starts."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if folder in " ".join(process.cmdline()):
                for each in (*process.children(recursive=True), process):
                    each.kill()


@contextmanager
def joined_ray(address: str, log: Log = print) -> Iterator[Any]:
    """Gives `ray`, connected to a cluster, whose machines get this program's code and the plugins."""
    if address != "auto":
        check_reachable(address)
    mode = token_mode()
    if mode != "token":
        log(
            "warning: this Ray cluster asks for no token, so everyone who can reach its ports can run code on it; "
            "run `ray get-auth-token --generate` before `ray start`"
        )
    with tempfile.TemporaryDirectory(prefix="code-") as code, _environment({"RAY_AUTH_MODE": mode, **NO_STATISTICS}):
        for name in PROGRAM:
            shutil.copytree(ROOT / name, Path(code, name), ignore=shutil.ignore_patterns("__pycache__"))
        for plugin, shipped in zip(plugins(), shipped_plugins(), strict=True):
            for file in own_files(plugin):
                target = Path(code, shipped).parent / file.relative_to(plugin.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        yield from _connected(f"--ray {address}", address=address, runtime_env={"working_dir": code})


def shipped_plugins() -> list[str]:
    """The path of each plugin on the machines of a cluster, relative to a worker's working directory."""
    parents = list(dict.fromkeys(path.parent for path in plugins()))
    return [f"plugins_{parents.index(path.parent)}/{path.name}" for path in plugins()]


def _connected(option: str, **arguments: Any) -> Iterator[Any]:
    with until_done(STARTING):  # a signal in the middle of the import can be lost
        import ray

    def shut_down() -> None:
        with until_done(ENDING):
            ray.shutdown()

    with until_done(STARTING) as stop_requested:
        try:
            ray.init(logging_level="ERROR", log_to_driver=False, **arguments)
        except SystemExit:  # Ray's own answer to SIGTERM while it starts
            shut_down()
            raise KeyboardInterrupt from None
        except Exception as error:  # Ray raises plain exceptions when one of its processes does not start
            shut_down()
            if not stop_requested():
                line = next(iter(str(error).splitlines()), "")[:300]
                hint = f"; {SAME_TOKEN}" if isinstance(error, ConnectionError) else ""
                message = f"{option}: Ray does not start or connect ({type(error).__name__}: {line}){hint}"
                raise UserError(message) from error
        if stop_requested():
            shut_down()
            return
    try:
        yield ray
    finally:
        shut_down()


def check_reachable(address: str) -> None:
    """`UserError` for what is not HOST:PORT, and where nothing answers."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 65536):
        raise UserError(f"--ray {address}: write auto, or HOST:PORT as `ray start --head` prints it", BAD_USAGE)
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--ray {address}: nothing answers there ({why}); is `ray start --head` running?") from None


def token_mode() -> str:
    """How Ray connects: with the token of this machine, if it has one."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    has_token = "RAY_AUTH_TOKEN" in os.environ or file.is_file()
    return os.environ.get("RAY_AUTH_MODE", "token" if has_token else "disabled")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
