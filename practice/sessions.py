"""Exec sessions: one command in a running container, over a WebSocket in Kubernetes' channel protocol.

``v5.channel.k8s.io`` and ``v4.channel.k8s.io`` (apimachinery remotecommand): one byte of channel before each binary
message; 0 stdin, 1 stdout, 2 stderr, 3 the final Status, and in v5 255 closes the channel its second byte names.
There is no terminal. A command outlives its connection, as it does in a real container.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from practice.containers import Container
from practice.kinds import Object
from practice.processes import Processes
from practice.refusal import Refusal

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_PIECE = 1 << 15


@dataclass
class Command:
    """One command that runs: its process group, our ends of its pipes, and its exit code once it has one."""

    group: int
    stdin: int | None
    outputs: dict[int, int]
    code: asyncio.Future[int] = field(repr=False)


def protocol_of(offered: Sequence[str]) -> str:
    """The newest protocol both sides speak; 400 when there is none."""
    for known in (V5, V4):
        if known in offered:
            return known
    raise Refusal(400, f"unable to upgrade: the practice range speaks {V5} and {V4} only, not {', '.join(offered)}")


def start(
    processes: Processes,
    container: Container,
    words: Sequence[str],
    streams: frozenset[int],
    loop: asyncio.AbstractEventLoop,
) -> Command:
    """Start a command in a container with pipes for the wanted streams.

    Raises:
        OSError: The program does not exist or may not be run.
    """
    code: asyncio.Future[int] = loop.create_future()
    theirs: dict[int, int] = {}
    ours: dict[int, int] = {}
    for channel in streams:
        reading, writing = os.pipe()
        ours[channel], theirs[channel] = (writing, reading) if channel == _STDIN else (reading, writing)

    def ended(number: int) -> None:
        with contextlib.suppress(RuntimeError):  # the range has stopped
            loop.call_soon_threadsafe(lambda: None if code.done() else code.set_result(number))

    try:
        nothing = subprocess.DEVNULL
        files = (theirs.get(_STDIN, nothing), theirs.get(_STDOUT, nothing), theirs.get(_STDERR, nothing))
        argv = container.argv(list(words))
        group = processes.start(argv, container.env, container.folder, files, ended, ends_group=False)
    except OSError:
        for descriptor in ours.values():
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs.values():
            os.close(descriptor)
    return Command(group, ours.pop(_STDIN, None), ours, code)


async def attend(socket: WebSocket, protocol: str, command: Command) -> None:
    """Carry the streams of a started command, and its end, over an accepted WebSocket."""
    loop = asyncio.get_running_loop()
    feeding = loop.create_task(_feed(socket, protocol, command))
    carrying = [loop.create_task(_carry(socket, channel, pipe)) for channel, pipe in command.outputs.items()]
    try:
        if carrying:
            await asyncio.wait(carrying)
        code = await command.code
        await socket.send_bytes(bytes([_STATUS]) + json.dumps(status_of(code)).encode())
        await socket.close()
    except (WebSocketDisconnect, RuntimeError, OSError):
        return
    finally:
        feeding.cancel()
        for task in carrying:
            task.cancel()


async def _feed(socket: WebSocket, protocol: str, command: Command) -> None:
    """Client to standard input, until the client closes it (v5) or goes."""
    loop, pipe = asyncio.get_running_loop(), command.stdin
    try:
        while True:
            message = await socket.receive_bytes()
            if protocol == V5 and message[:2] == bytes([_CLOSE, _STDIN]) and pipe is not None:
                os.close(pipe)
                pipe = None
            elif message[:1] == bytes([_STDIN]) and len(message) > 1 and pipe is not None:
                await loop.run_in_executor(None, _write, pipe, message[1:])
    except (WebSocketDisconnect, RuntimeError, KeyError):
        return
    finally:
        if pipe is not None:
            os.close(pipe)


def _write(pipe: int, data: bytes) -> None:
    """All of it; a command that no longer reads is its own affair."""
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError):
        while view:
            view = view[os.write(pipe, view) :]


async def _carry(socket: WebSocket, channel: int, pipe: int) -> None:
    """One output to the client; when the client is gone, to nobody, so that the command is not stopped by it."""
    loop, is_heard = asyncio.get_running_loop(), True
    reader = asyncio.StreamReader(limit=_PIECE, loop=loop)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(pipe, "rb", buffering=0)
    )
    try:
        while piece := await reader.read(_PIECE):
            if is_heard:
                try:
                    await socket.send_bytes(bytes([channel]) + piece)
                except (WebSocketDisconnect, RuntimeError, OSError):
                    is_heard = False
    finally:
        transport.close()


def status_of(code: int) -> Object:
    """The final Status of a command."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    text = f"command terminated with non-zero exit code: exit code {code}"
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return failure(text, "NonZeroExitCode", {"causes": causes})


def failure(message: str, reason: str, details: dict[str, Any]) -> Object:
    """The final Status of a command that failed or never ran."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details}


async def report_unstartable(socket: WebSocket, program: str, error: OSError) -> None:
    """The end of a session whose program cannot be run."""
    text = f'Internal error occurred: error executing command in container: exec: "{program}": {error.strerror}'
    await socket.send_bytes(bytes([_STATUS]) + json.dumps(failure(text, "InternalError", {}) | {"code": 500}).encode())
    await socket.close()
