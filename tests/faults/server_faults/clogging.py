"""Clogging: a way to a server that is slow, or passes nothing while both ends believe that they are connected.

A clogged way keeps what it was given and passes it on later, as a network does that drops packets for a while. Nobody
is told: connections stay open, new ones are accepted and never answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import redis.connection
from anyio.from_thread import start_blocking_portal

_Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Way:
    """A proxy before one server.

    Args:
        server: URL of the server.

    Attributes:
        delay: Seconds that each packet takes, in each direction.
    """

    def __init__(self, server: str) -> None:
        self._options = redis.connection.parse_url(server)
        self._open = asyncio.Event()
        self._open.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay = 0.0
        self.port = 0

    @property
    def url(self) -> str:
        """Address of its near end."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    # Called from other threads than the proxy's own.

    def clog(self) -> None:
        """Pass nothing from now on."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.clear)

    def unclog(self) -> None:
        """Pass what has piled up, and go on."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)

    def cut(self) -> None:
        """Break every connection; those that are made afterwards work."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(server_writer)
        pair = (writer, server_writer)
        await asyncio.gather(self._pass(reader, server_writer, pair), self._pass(server_reader, writer, pair))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        path = self._options.get("path")
        if path:
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(self._options.get("host", "localhost"), self._options.get("port", 6379))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, pair: _Pair) -> None:
        try:
            while packet := await source.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                target.write(packet)
                await target.drain()
        except OSError:
            return
        finally:
            for writer in pair:
                self._writers.discard(writer)
                writer.transport.abort()


@contextmanager
def ways(server: str, count: int) -> Iterator[list[Way]]:
    """Several ways to one server, open as long as the block lasts; they run in a thread of their own."""
    with start_blocking_portal() as portal:
        made: list[Way] = []
        try:
            for _ in range(count):
                made.append(portal.call(_started, server))
            yield made
        finally:
            for way in made:
                portal.call(way.close)


async def _started(server: str) -> Way:
    way = Way(server)
    await way.start()
    return way
