"""The commands `server status | start | stop`: refloat's own Prefect server."""

from __future__ import annotations

from typing import Any

import typer

from cli import flags, output
from deployments import server as own
from refloat.errors import Unavailable

app = typer.Typer(name="server", help="The Prefect server runs report to.")


@app.command()
def status(form: flags.Output = flags.Form.TABLE) -> None:
    """Say which Prefect server runs report to, and whether it answers."""
    configured = own.configured_api()
    server = own.running()
    url = configured or (server.api_url if server else None)
    is_up = own.is_healthy(configured) if configured else server is not None
    value: dict[str, Any] = {
        "api_url": url,
        "is_up": is_up,
        "is_own": configured is None,
        "pid": server.pid if server and not configured else None,
    }

    def tell() -> None:
        if url is None:
            output.say("no Prefect server: the first run starts refloat's own")
        else:
            whose = "configured" if configured else f"refloat's own, process {server.pid if server else '?'}"
            output.say(f"Prefect server {url} ({whose}): {'up' if is_up else 'does not answer'}")
            output.say(f"UI             {own.ui_of(url)}")
            if not configured:
                output.say(f"log            {own.log_path()}")

    output.show(form, value, lambda _: tell())
    if configured and not is_up:
        raise Unavailable(f"the configured Prefect server at {configured} does not answer")


@app.command()
def start() -> None:
    """Start refloat's own Prefect server, where it is not up already; it stays."""
    with own.starting() as server:
        pass
    output.say(f"Prefect server {server.api_url} (process {server.pid}) is up; UI {own.ui_of(server.api_url)}")


@app.command()
def stop() -> None:
    """Stop refloat's own Prefect server; its records stay for the next one."""
    server = own.stop()
    output.say(f"stopped process {server.pid}" if server else "refloat's own Prefect server was not running")
