"""ChildProcess: a child of this service, seen from here: how it is started, spoken to and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from datamesh.supervise.child_wire import Call, Opening, packed, read

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from datamesh.supervise.child import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_STANDARD_ERROR: Final = 2
_BUFFER_BYTES: Final = 1 << 20
_HUNG_UP_SECONDS: Final = 1.0
"""That a process may still take to end when its connection has."""
_REAP_SECONDS: Final = 5.0
"""That the kernel may take to end a killed process before it is left to end alone."""


class ChildProcess:
    """A process that runs `datamesh.supervise.child`, and the connection to it.

    Whatever it prints goes to the standard error of this process. It inherits no connection but its own.
    """

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._exit = asyncio.create_task(self._watch(), name="datamesh-child")

    @classmethod
    async def start(cls) -> ChildProcess:
        """Start one, with this interpreter and from the same places.

        Raises:
            OSError: No process can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await _connected(ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *_command(theirs.fileno()), pass_fds=(theirs.fileno(),), stdin=DEVNULL, stdout=_STANDARD_ERROR
                )
            except BaseException:
                await _hang_up(writer)
                raise
        return cls(process, reader, writer)

    @property
    def is_alive(self) -> bool:
        return not self._exit.done() and self._process.returncode is None

    async def send(self, message: Opening | Call | None) -> None:
        """Send a message. That nobody is there to read it is heard afterwards."""
        with suppress(OSError):
            self._writer.write(packed(message))
            await self._writer.drain()

    async def hear(self) -> Sequence[Any] | None:
        """Return what the child says next; None: it is gone."""
        try:
            said: Sequence[Any] = await read(self._reader)
        except (EOFError, OSError):
            return None
        return said

    async def end(self, seconds: float) -> None:
        """Let it clean up for as long as `seconds`, then kill it. A cancellation kills it at once."""
        try:
            await self.send(None)
            await asyncio.wait((self._exit,), timeout=seconds)
        finally:
            await self.kill()

    async def ended(self) -> int:
        """Wait for the end of one that has hung up, and kill it if it does not come; returns the same as `kill`."""
        await asyncio.wait((self._exit,), timeout=_HUNG_UP_SECONDS)
        return await self.kill()

    async def kill(self) -> int:
        """Kill it unless it has ended; return its exit status, or the number of the signal that ended it, below 0."""
        if self.is_alive:
            # Not `process.kill()`: it looks first whether the process lives, and so takes its status from who waits.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await asyncio.wait((self._exit,), timeout=_REAP_SECONDS)
        status = self._process.returncode
        return -signal.SIGKILL if status is None else status

    async def _watch(self) -> None:
        """Hang up when the process has ended: processes that it started may hold the other end open."""
        await self._process.wait()
        await _hang_up(self._writer)


async def _connected(ours: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
    except BaseException:
        ours.close()
        raise


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _command(descriptor: int) -> list[str]:
    places = json.dumps([place for place in sys.path if isinstance(place, str)])
    return [sys.executable, "-c", _START, places, str(descriptor), str(os.getpid())]
