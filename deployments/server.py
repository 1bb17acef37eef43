"""refloat's own Prefect server: found when it is up, started once and left running, stopped on request."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from refloat.clock import Deadline, pause
from refloat.errors import ConfigError, TimedOut, Unavailable

HOME = "REFLOAT_HOME"
API_URL = "PREFECT_API_URL"
PORTS = (4200, 4207)
"""Prefect's usual port, and ours when another server has that one; then any free port."""
START_LIMIT = timedelta(seconds=90)
"""A cold first start takes half a minute on a small machine (research/prefect.md §2.1)."""
STOP_LIMIT = timedelta(seconds=15)
HEALTH_SECONDS = 2.0
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
"""No telemetry, no advertisement, no second server by accident (research/prefect.md §10, rule 26)."""


@dataclass(frozen=True)
class Server:
    """A server refloat started."""

    pid: int
    port: int
    home: str

    @property
    def api_url(self) -> str:
        """What ``PREFECT_API_URL`` is set to."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def is_alive(self) -> bool:
        """Whether its process runs and is still a Prefect server (process ids are used again)."""
        command = Path(f"/proc/{self.pid}/cmdline")
        if command.parent.parent.joinpath("self").exists():
            with suppress(OSError):
                return b"prefect" in command.read_bytes()
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False


def home() -> Path:
    """refloat's folder on this machine: ``REFLOAT_HOME``, else ``~/.refloat``."""
    return Path(os.environ.get(HOME) or "~/.refloat").expanduser()


def prefect_home() -> Path:
    """Where the server's database and log are."""
    return home() / "prefect"


def log_path() -> Path:
    """What the server said."""
    return prefect_home() / "server.log"


def configured_api() -> str | None:
    """The address of a server that is not refloat's: ``PREFECT_API_URL``, or the active Prefect profile's."""
    if url := os.environ.get(API_URL):
        return url
    profiles = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    try:
        found = tomllib.loads(profiles.read_text())
    except (OSError, ValueError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or found.get("active")
    url = found.get("profiles", {}).get(active, {}).get(API_URL)
    return str(url) if url else None


def running() -> Server | None:
    """refloat's own server, when it is up and answers."""
    server = recorded()
    return server if server and server.is_alive and is_healthy(server.api_url) else None


def recorded() -> Server | None:
    """The server refloat started last, dead or alive."""
    with suppress(OSError, ValueError, TypeError):
        return Server(**json.loads((prefect_home() / "server.json").read_text()))
    return None


def is_healthy(api_url: str) -> bool:
    """Whether a Prefect server answers there; one that asks who is asking does (Prefect's client will tell it)."""
    try:
        with urlopen(f"{api_url.rstrip('/')}/health", timeout=HEALTH_SECONDS) as answer:
            return bool(answer.status == 200)
    except HTTPError as refused:
        return refused.code in (401, 403)
    except (URLError, OSError, ValueError):
        return False


def ui_of(api_url: str) -> str:
    """Where a server's pages are: its API address without ``/api``."""
    return api_url.rstrip("/").removesuffix("/api")


def client_environment(api_url: str, *, own: bool) -> dict[str, str]:
    """The environment in which Prefect's client talks to a server, quietly."""
    environment = {**QUIET, API_URL: api_url}
    return {**environment, "PREFECT_HOME": str(prefect_home())} if own else environment


@contextmanager
def starting() -> Iterator[Server]:
    """A server on its way: begun here, or by another command meanwhile. The block runs while it starts up.

    Raises:
        Unavailable: It ended while starting; its log is named.
        TimedOut: It did not answer within 90 s.
    """
    with _alone():
        server, process = recorded(), None
        if server is None or not server.is_alive:  # one that is alive and does not answer yet is on its way
            server, process = _begin()
        yield server
        _wait_until_healthy(server, process)


def stop() -> Server | None:
    """Stop refloat's own server; None when there is none."""
    with _alone():
        server = recorded()
        (prefect_home() / "server.json").unlink(missing_ok=True)
        if server is None or not server.is_alive:
            return None
        os.kill(server.pid, signal.SIGTERM)
        deadline = Deadline.after(STOP_LIMIT)
        while server.is_alive and not _is_reaped(server.pid):
            if deadline.is_over:
                os.kill(server.pid, signal.SIGKILL)
                break
            pause(timedelta(milliseconds=100))
        return server


def _is_reaped(pid: int) -> bool:
    """Whether it was our own child and has ended."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


@contextmanager
def _alone() -> Iterator[None]:
    """One command at a time decides about the server."""
    try:
        prefect_home().mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (prefect_home() / "server.lock").open("w")
    except OSError as wrong:
        raise ConfigError(
            f"refloat's folder {home()} cannot be written: {wrong.strerror}",
            guidance=f"Set {HOME} to a folder of yours.",
        ) from wrong
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _begin() -> tuple[Server, subprocess.Popen[bytes]]:
    """Start a server that outlives this command."""
    port = _free_port()
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log_path().open("wb") as log:
        process = subprocess.Popen(
            words,
            env=_server_environment(port),
            cwd=prefect_home(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process.pid, port, str(prefect_home()))
    (prefect_home() / "server.json").write_text(json.dumps(asdict(server)))
    return server, process


def _server_environment(port: int) -> Mapping[str, str]:
    """The server's environment: nothing of the caller's secrets, nothing of another Prefect."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR") if name in os.environ}
    url = f"http://127.0.0.1:{port}/api"
    return {**kept, **QUIET, "PREFECT_HOME": str(prefect_home()), API_URL: url, "PREFECT_UI_API_URL": url}


def _free_port() -> int:
    for port in (*PORTS, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ConfigError("no port is free on 127.0.0.1", guidance=f"Set {API_URL} to a Prefect server that is up.")


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes] | None) -> None:
    deadline = Deadline.after(START_LIMIT)
    while not is_healthy(server.api_url):
        if process is not None and process.poll() is not None:
            raise Unavailable(
                f"the Prefect server ended while starting (exit status {process.returncode}); it said: {_last_words()}",
                guidance=f"Read {log_path()}, or set {API_URL} to a Prefect server that is up.",
            )
        if deadline.is_over:
            raise TimedOut(
                f"the Prefect server does not answer at {server.api_url} after {START_LIMIT.total_seconds():.0f} s",
                guidance=f"Read {log_path()}, or set {API_URL} to a Prefect server that is up.",
            )
        pause(timedelta(milliseconds=150))


def _last_words() -> str:
    with suppress(OSError):
        lines = [line.strip() for line in log_path().read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing"
    return "nothing"
