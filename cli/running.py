"""Running a flow in this process: the Prefect server it reports to, quiet settings, signals that end in clean-up."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from cli.failing import prefect_is_gone
from cli.output import remark
from deployments.server import Server, client_environment, configured_api, is_healthy, running, starting, ui_of
from refloat.errors import Interrupted, Unavailable

R = TypeVar("R")
CONSOLE = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_CLIENT_MAX_RETRIES": "3",
}
"""Prefect's own lines go to its server and not to this terminal, unless the caller's environment says otherwise."""


@contextmanager
def prefect_server() -> Iterator[str]:
    """Make Prefect's client talk to a healthy server; give its API address. Import Prefect inside the block only.

    The server is the configured one, else refloat's own, which is started when it is not up. The block runs while
    it starts: the server is healthy only after the block.

    Raises:
        Unavailable: The configured server does not answer, or refloat's own ended while starting.
        TimedOut: refloat's own did not come up.
    """
    url = configured_api()
    own = running() if url is None else None
    if url is not None:
        if not is_healthy(url):
            raise Unavailable(
                f"the Prefect server at {url} does not answer",
                guidance="Start it, correct PREFECT_API_URL or the Prefect profile, or unset it: refloat has its own.",
            )
        use(client_environment(url, own=False))
        yield url
    elif own is not None:
        use(client_environment(own.api_url, own=True))
        yield own.api_url
    else:
        with starting() as server:
            use(client_environment(server.api_url, own=True))
            remark(announcement(server))
            yield server.api_url


def announcement(server: Server) -> str:
    """One line about a server that was started and stays."""
    return (
        f"Prefect server started at {ui_of(server.api_url)}; it stays for the next runs (refloat server stop ends it)"
    )


def use(environment: Mapping[str, str]) -> None:
    """Set what Prefect reads when it is imported; where it is imported already, have it read again."""
    os.environ.update(environment)
    for name, value in CONSOLE.items():
        os.environ.setdefault(name, value)
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def run_flow(url: str, flow: Callable[[], R], *, left: str | Callable[[], str]) -> R:
    """Run a flow to its end in the main thread.

    Without heartbeats: Prefect looks at their stop flag once a second, which every run would wait for at its end
    (research/prefect.md §2.2). They show the server that a worker died; here somebody is watching.

    Args:
        url: The Prefect server's API address, for messages.
        flow: Calls the flow and returns its value.
        left: What an interruption leaves behind, for the message; asked once it has happened.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the flow has cleaned up.
        Unavailable: The Prefect server went away in between.
        RefloatError: The flow's own.
    """
    import httpx
    from prefect.exceptions import TerminationSignal
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    try:
        with interruptible(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return flow()
    except (KeyboardInterrupt, TerminationSignal) as signalled:
        stopped = Interrupted(f"interrupted; {left if isinstance(left, str) else left()}")
        for note in getattr(signalled, "__notes__", ()):
            stopped.add_note(note)
        raise stopped from signalled
    except httpx.HTTPError as gone:
        prefect_is_gone.set()
        raise Unavailable(
            f"the Prefect server at {url} failed during the run: {gone or type(gone).__name__}",
            guidance="The lines above tell what was done, and refloat points what was sealed. "
            "Start the server again, and the run if its work was not done.",
        ) from gone
    except RuntimeError as gone:
        if "Failed to reach API" not in str(gone):
            raise
        prefect_is_gone.set()
        raise Unavailable(f"the Prefect server at {url} cannot be reached") from gone


@contextmanager
def interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM interrupts the block; what follows until its clean-up has ended is only answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signalled = threading.Event()

    def hear(number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        if signalled.is_set():
            remark(f"{name}: still removing what this run made; please wait")
            return
        signalled.set()
        remark(f"{name}: stopping, and removing what this run made; please wait")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
