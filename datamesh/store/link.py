"""Link: one connection to Redis that everybody in an event loop uses at once.

Commands that are written while others are under way leave together in one packet, replies are read in bulk: a command
costs what it costs in a pipeline, without anybody having to build one. A caller that goes away leaves its reply to be
read and dropped, so a cancellation can never shift replies or close the connection under others.

A lost connection fails every command under way with `LinkLost`; nothing is repeated here, because only the caller knows
whether that is safe.

Source:
    Implicit pipelining is what ioredis calls auto-pipelining. Replies are read straight from the stream, many at a
    time, because redis-py would run a coroutine with a timer for each of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from datamesh.errors import DatameshError

Reply = Any
"""What a server answers: bytes, int, None or lists of these."""

_CHUNK_BYTES = 1 << 18


class LinkLost(DatameshError):
    """The connection went away; whether the command ran is not known."""


class ReplyError(DatameshError):
    """The server answered with an error; `code` is its first word."""

    def __init__(self, message: str) -> None:
        self.code = message.partition(" ")[0]
        super().__init__(message)


class Caller(Protocol):
    """Sends one command and waits for its reply."""

    generation: int
    """Counts connections made; a caller that remembers it knows whether replies may have been lost since."""

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        """Send a command.

        Args:
            args: The command and its arguments.
            timeout: Seconds until the connection counts as dead and is dropped.

        Raises:
            LinkLost: The connection could not be made, went away, or gave no answer in time.
            ReplyError: The server answered with an error.
        """
        ...

    async def unblock(self, by: Caller) -> bool:
        """End a blocking command that is under way here, by a command over another link; False: none was."""
        ...

    async def close(self) -> None:
        """Close the connection; commands under way fail."""
        ...


class Link:
    """A self-healing connection: it connects with the first command, and anew with the first after a loss."""

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], *, timeout: float = 10.0, blocking: bool = False
    ) -> None:
        self._connect = connect
        self._blocking = blocking
        self._timeout = timeout
        self._queue: list[bytes] = []
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._flush_due = False
        self._client_id = 0
        self.generation = 0

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        while self._connection is None:
            await self._ensure()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._queue.append(hiredis.pack_command(args))  # type: ignore[arg-type]
        self._pending.append(future)
        if not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush)
        timer = loop.call_later(timeout or self._timeout, self._expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _expire(self, future: asyncio.Future[Reply]) -> None:
        if not future.done():
            self._drop(LinkLost("the server gave no answer in time"))

    def _flush(self) -> None:
        self._flush_due = False
        if self._connection is None or not self._queue:
            return
        packet = b"".join(self._queue)
        self._queue.clear()
        try:
            self._connection._writer.write(packet)  # type: ignore[union-attr]
        except (OSError, RuntimeError) as error:
            self._drop(LinkLost(str(error)))

    async def _ensure(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open(), name="datamesh-connect")
        try:
            await asyncio.shield(self._connecting)
        finally:
            if self._connecting is not None and self._connecting.done():
                self._connecting = None

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except (RedisError, OSError) as error:
            raise LinkLost(f"{type(error).__name__}: {error}") from error
        self._connection = connection
        self.generation += 1
        self._reading = asyncio.create_task(self._read(connection), name="datamesh-link")
        if self._blocking:
            self._client_id = int(await self.call("CLIENT", "ID"))

    async def _read(self, connection: AbstractConnection) -> None:
        stream = connection._reader
        assert stream is not None
        parser = hiredis.Reader()
        reason = "the server closed the connection"
        try:
            while chunk := await stream.read(_CHUNK_BYTES):
                parser.feed(chunk)
                while (reply := parser.gets()) is not False:
                    self._answer(reply)
        except (OSError, hiredis.ProtocolError) as error:
            reason = str(error)
        if self._connection is connection:
            self._drop(LinkLost(reason))

    def _answer(self, reply: Reply) -> None:
        future = self._pending.popleft()
        if future.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(ReplyError(str(reply)))
        else:
            future.set_result(reply)

    def _drop(self, error: LinkLost) -> None:
        connection, self._connection = self._connection, None
        self._queue.clear()
        self._client_id = 0
        pending, self._pending = self._pending, deque()
        for future in pending:
            if not future.done():
                future.set_exception(error)
        if connection is not None and connection._writer is not None:
            connection._writer.close()
            # It would warn, when it is collected, of a socket that nobody had closed.
            connection._reader = connection._writer = None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._reading = None

    async def unblock(self, by: Caller) -> bool:
        return bool(self._client_id and await by.call("CLIENT", "UNBLOCK", self._client_id))

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        reading, connection = self._reading, self._connection
        self._drop(LinkLost("closed"))
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)
        if connection is not None:
            await connection.disconnect(nowait=True)
