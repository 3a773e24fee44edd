"""Link: one connection to Redis that everybody in an event loop uses at once.

Commands that are written while others are under way leave together in one packet, replies are read in bulk: a command
costs what it costs in a pipeline, without anybody having to build one. A caller that goes away leaves its reply to be
read and dropped, so a cancellation can never shift replies or close the connection under others.

A lost connection fails every command under way with `LinkLost`; nothing is repeated here, because only the caller knows
whether that is safe. A connection counts as lost when the server is silent for a while although it owes an answer:
large values may take their time as long as bytes move.

Source:
    Implicit pipelining is what ioredis calls auto-pipelining. Replies are read straight from the stream, many at a
    time, because redis-py would run a coroutine with a timer for each of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from datamesh.errors import DatameshError

Reply = Any
"""What a server answers: bytes, int, None or lists of these."""

_Waiting = tuple["asyncio.Future[Reply]", float, float]
"""Who waits for a reply, since when, and how many seconds of silence the server may keep."""

_CHUNK_BYTES = 1 << 18
_SILENCE = 4.0
"""Seconds after which a server that owes an answer counts as gone."""
_DENIED = ("The user executing the script can't", "ACL failure in script")


class LinkLost(DatameshError):
    """The connection went away; whether the command ran is not known."""


class ReplyError(DatameshError):
    """The server answered with an error; `code` is its first word, NOPERM also where a script misses a right."""

    def __init__(self, message: str) -> None:
        self.code = "NOPERM" if any(text in message for text in _DENIED) else message.partition(" ")[0]
        super().__init__(message)


class Caller(Protocol):
    """Sends one command and waits for its reply."""

    generation: int
    """Counts connections made; a caller that remembers it knows whether replies may have been lost since."""

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        """Send a command.

        Args:
            args: The command and its arguments.
            timeout: Seconds of silence after which the connection counts as dead and is dropped.

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

    chaos: ClassVar[Callable[[str, tuple[Any, ...]], None] | None] = None
    """Tests make a process die here: called with "before" and "after", and the command."""

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], *, timeout: float = _SILENCE, blocking: bool = False
    ) -> None:
        self._connect = connect
        self._blocking = blocking
        self._timeout = timeout
        self._queue: list[bytes] = []
        self._pending: deque[_Waiting] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._flush_due = False
        self._client_id = 0
        self._unsent_bytes = 0
        self._stirred = 0.0
        self.generation = 0

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        if Link.chaos is not None:
            Link.chaos("before", args)
        while self._connection is None:
            await self._ensure()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._queue.append(hiredis.pack_command(args))  # type: ignore[arg-type]
        self._pending.append((future, loop.time(), timeout or self._timeout))
        if not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush)
        if self._watch is None:
            self._watch = loop.call_later(timeout or self._timeout, self._look)
        reply = await future
        if Link.chaos is not None:
            Link.chaos("after", args)
        return reply

    def _look(self) -> None:
        """See whether the server owes an answer for too long; also one that nobody waits for any more."""
        self._watch = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        unsent_bytes = self._buffered_bytes()
        if unsent_bytes < self._unsent_bytes:
            self._stirred = loop.time()
        self._unsent_bytes = unsent_bytes
        _, since, seconds = self._pending[0]
        left = max(since, self._stirred) + seconds - loop.time()
        if left > 0:
            self._watch = loop.call_later(left, self._look)
        else:
            self._drop(LinkLost(f"the server gave no answer within {seconds:g} s"))

    def _buffered_bytes(self) -> int:
        writer = None if self._connection is None else self._connection._writer
        return 0 if writer is None else writer.transport.get_write_buffer_size()

    def _flush(self) -> None:
        self._flush_due = False
        if self._connection is None or not self._queue:
            return
        packet = b"".join(self._queue)
        self._queue.clear()
        try:
            self._connection._writer.write(packet)  # type: ignore[union-attr]
            self._unsent_bytes = self._buffered_bytes()
        except (OSError, RuntimeError) as error:
            self._drop(LinkLost(str(error)))

    async def _ensure(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open(), name="datamesh-connect")
            # Its error is for whoever waits for it; they may all have gone.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
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
            # Without the right to ask for it, reads cannot be called back and end by themselves.
            with suppress(ReplyError):
                self._client_id = int(await self.call("CLIENT", "ID"))

    async def _read(self, connection: AbstractConnection) -> None:
        stream = connection._reader
        assert stream is not None
        parser = hiredis.Reader()
        reason = "the server closed the connection"
        clock = asyncio.get_running_loop().time
        try:
            while chunk := await stream.read(_CHUNK_BYTES):
                self._stirred = clock()
                parser.feed(chunk)
                while (reply := parser.gets()) is not False:
                    self._answer(reply)
        except (OSError, hiredis.ProtocolError) as error:
            reason = str(error)
        if self._connection is connection:
            self._drop(LinkLost(reason))

    def _answer(self, reply: Reply) -> None:
        future, _, _ = self._pending.popleft()
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
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for future, _, _ in pending:
            if not future.done():
                future.set_exception(error)
        if connection is not None and connection._writer is not None:
            connection._writer.close()
            # It would warn, when it is collected, of a socket that nobody had closed.
            connection._reader = connection._writer = None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._reading = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def drop(self, reason: str) -> None:
        """Leave the server; commands under way fail, and the next one connects anew."""
        if self._connection is not None:
            self._drop(LinkLost(reason))

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
