"""Which Prefect server runs report to: the configured one, refloat's own, or one that only looks like it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deployments import server
from refloat.errors import ConfigError

PROFILES = """\
active = "work"
[profiles.work]
PREFECT_API_URL = "https://prefect.example.org/api"
[profiles.play]
PREFECT_LOGGING_LEVEL = "DEBUG"
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and nothing configured."""
    for name in os.environ:
        if name.startswith(("PREFECT_", "REFLOAT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REFLOAT_HOME", str(tmp_path / "refloat"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    (tmp_path / "prefect").mkdir()
    return tmp_path


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that gives every question the same status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/api"
        http.shutdown()


@pytest.mark.parametrize(
    ("answering", "is_up"), [(200, True), (401, True), (404, False), (503, False)], indirect=["answering"]
)
def test_health(answering: str, is_up: bool) -> None:
    """A server that asks for credentials is up; one that knows no such page is none."""
    assert server.is_healthy(answering) is is_up


def test_nobody_listens() -> None:
    """Quickly told."""
    assert not server.is_healthy("http://127.0.0.1:9/api")
    assert not server.is_healthy("no address")


def test_what_is_configured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable goes before the active profile; a profile without an address configures none."""
    assert server.configured_api() is None
    (place / "prefect" / "profiles.toml").write_text(PROFILES)
    assert server.configured_api() == "https://prefect.example.org/api"
    monkeypatch.setenv("PREFECT_PROFILE", "play")
    assert server.configured_api() is None
    monkeypatch.setenv("PREFECT_API_URL", "http://other/api")
    assert server.configured_api() == "http://other/api"
    assert server.ui_of("http://other/api/") == "http://other"


def test_a_server_that_died_is_none(place: Path) -> None:
    """Its record is left over, and its process id is somebody else's by now, who is left alone."""
    assert server.stop() is None
    record = place / "refloat" / "prefect" / "server.json"
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            record.write_text(json.dumps({"pid": other.pid, "port": 9, "home": "x"}))
            found = server.recorded()
            assert found is not None
            assert not found.is_alive
            assert server.running() is None
            assert server.stop() is None
            assert other.poll() is None
        finally:
            other.kill()
    assert not record.exists()


def test_a_home_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, with what to set."""
    (place / "file").write_text("")
    monkeypatch.setenv("REFLOAT_HOME", str(place / "file"))
    with pytest.raises(ConfigError, match="cannot be written") as refused, server.starting():
        pass
    assert "REFLOAT_HOME" in refused.value.guidance
