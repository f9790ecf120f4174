"""A Ray of one's own on this machine, or one that runs already.

    with cluster(None, n_cpus=2) as ray: ...                 # its own: on the loopback alone, ended with the block
    with cluster("10.0.0.1:6379", say=print) as ray: ...     # joined, and left as it was

The one module that starts Ray; it is imported here and not before, since the start's settings are read when it is.
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
from unittest import mock

import psutil

from errors import BAD_USAGE, UserError
from runs.interrupt import until_done
from runs.say import Say
from workers.worker import ROOT, code_files

PATIENCE = 5  # seconds for a connection; Ray itself tries for two minutes
STORE = 100 << 20  # results are some kilobytes; Ray's own default is 30 % of the memory
LONGEST = 40  # of a folder's path: sockets lie below it, whose paths have 107 characters at most
# Ray binds every port to all interfaces unless it takes the machine for a Mac or Windows, where it uses the loopback.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
SAME_TOKEN = "do the cluster and this machine have the same token (~/.ray/auth_token), or none?"
ROOM = 64 << 20  # bytes that must be free for its logs
SHARED = "/dev/shm"
STARTING = b"\nstopping when Ray has started; once more stops at once\n"
ENDING = b"\nstopping when Ray has ended\n"
_token = secrets.token_hex(32)  # in place of a file in the home directory, which others may read


@contextmanager
def cluster(address: str | None, n_cpus: int = 1, n_gpus: int = 0, say: Say = print) -> Iterator[Any]:
    """Gives `ray`, connected; `UserError` where it cannot start or nothing answers at `address`."""
    with _own(n_cpus, n_gpus) if address is None else _joined(address, say) as ray:
        yield ray


@contextmanager
def _own(n_cpus: int, n_gpus: int) -> Iterator[Any]:
    folder = _folder()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    private = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token, "PYTHONPATH": paths, **LOOPBACK, **SILENT}
    how = {"num_cpus": n_cpus, "num_gpus": n_gpus, "object_store_memory": STORE, "_temp_dir": folder}
    try:
        _check_machine(folder)
        with _environment(private):
            with _no_dashboard():
                ray = _init("--workers", address="local", include_dashboard=False, **how)
            try:
                yield ray
            finally:
                with until_done(ENDING):
                    ray.shutdown()
    finally:
        _end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _joined(address: str, say: Say) -> Iterator[Any]:
    if address != "auto":
        _check_reachable(address)
    with tempfile.TemporaryDirectory(prefix="code-") as code, _environment(SILENT | _mode()):
        for path in code_files():  # so that the workers run this version, wherever they are
            (Path(code) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, Path(code) / path)
        ray = _init(f"--ray {address}", address=address, runtime_env={"working_dir": code})
        try:
            if not _has_token():
                say(
                    "warning: this Ray cluster asks for no token, so whoever reaches its ports can run code on it; "
                    "`ray get-auth-token --generate` before `ray start` makes one"
                )
            yield ray
        finally:
            ray.shutdown()


def _init(asked: str, **how: Any) -> Any:
    import ray

    # A signal in the midst of it would end the process, or leave Ray's behind. Ray's own handler of SIGTERM would too.
    unhandled = mock.patch.object(ray._private.utils, "set_sigterm_handler", lambda _: None)
    with until_done(STARTING) as stopped, unhandled:
        try:
            ray.init(logging_level="ERROR", log_to_driver=False, **how)
        except Exception as error:  # where a part of it does not start, Ray raises a plain one
            with suppress(Exception):
                ray.shutdown()
            if stopped():
                raise KeyboardInterrupt from None
            line = next(iter(str(error).splitlines()), "")[:300]
            message = f"{asked}: Ray does not start or connect ({type(error).__name__}: {line})"
            raise UserError(f"{message}; {SAME_TOKEN}" if isinstance(error, ConnectionError) else message) from error
        if stopped():
            ray.shutdown()
    return ray


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise UserError(f"--ray {address}: write auto, or HOST:PORT as `ray start --head` says", BAD_USAGE)
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--ray {address}: nothing answers there ({why}); is `ray start --head` running?") from None


def _mode() -> dict[str, str]:
    """How Ray is told to use a token that is there, which it does by itself with `ray start` and for `auto` alone."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    there = "RAY_AUTH_TOKEN" in os.environ or path.is_file()
    return {"RAY_AUTH_MODE": "token"} if there and "RAY_AUTH_MODE" not in os.environ else {}


def _has_token() -> bool:
    """Whether a token is used here, and so in the cluster: where one has it and the other not, they do not connect."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return is_token_auth_enabled()


@contextmanager
def _no_dashboard() -> Iterator[None]:
    """Without the process that Ray starts even where there is no dashboard, which asks an address of the network
    which cloud this is. No setting leaves it out."""
    from ray._private import services

    with mock.patch.object(services, "start_api_server", lambda *_, **__: (None, None)):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    with mock.patch.dict(os.environ, values):
        yield


def _end_processes(folder: str) -> None:
    """End what is left of the Ray that has its files in `folder`: its agents outlive it by a quarter of a minute."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if folder in " ".join(process.cmdline()):
                for each in (process, *process.children(recursive=True)):
                    with suppress(psutil.Error):
                        each.kill()


def _folder() -> str:
    """A folder for Ray's sockets and logs, removed in the end."""
    where = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=where if len(where) <= LONGEST else "/tmp")


def _check_machine(folder: str) -> None:
    """`UserError` for what Ray waits for in vain, or ends by without a reason: a full folder, memory, the loopback."""
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise UserError(
            f"--workers: {folder} has {free >> 20} MiB left, and Ray needs {ROOM >> 20} for its logs; make room, or "
            "set TMPDIR to another folder"
        )
    if os.path.isdir(SHARED):
        try:
            tempfile.TemporaryFile(dir=SHARED).close()
        except OSError as error:
            raise UserError(f"--workers: Ray needs {SHARED}, which cannot be written ({error.strerror})") from None
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"--workers: this machine does not reach itself at 127.0.0.1 ({error.strerror or error}), where Ray's "
            "processes meet; is the loopback interface up?"
        ) from None
