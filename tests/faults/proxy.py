"""A proxy in front of Redis that loses replies: the command has run, the connection is cut before anybody hears of it.

When that happens is drawn from a seed, by the number of replies that went through.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import redis.connection
from anyio.from_thread import start_blocking_portal

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class LossyProxy:
    """Forwards connections to a server and cuts them at random.

    Args:
        server: URL of the server.
        seed: Makes the moments repeatable.
        mean: Packets from the server between two losses, on average.
    """

    def __init__(self, server: str, *, seed: int, mean: int) -> None:
        self._options = redis.connection.parse_url(server)
        self._random = random.Random(seed)
        self._mean = mean
        self._left = self._next()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.losses = 0
        self.url = ""
        self.is_lossy = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections that there are now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _next(self) -> int:
        return 1 + int(self._random.expovariate(1 / self._mean))

    async def _connect(self) -> Streams:
        path = self._options.get("path")
        if path:
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(self._options.get("host", "localhost"), self._options.get("port", 6379))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._connect()
        pair = (writer, server_writer)
        self._writers.update(pair)
        for source, target, loses in ((reader, server_writer, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._forward(source, target, pair, loses=loses))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pair: Pair,
        *,
        loses: bool,
    ) -> None:
        try:
            while packet := await source.read(1 << 16):
                if not loses:
                    self._saw(packet, pair)
                elif self._is_lost(pair):
                    break
                target.write(packet)
                await target.drain()
        except ConnectionError:
            return
        finally:
            for writer in pair:
                self._writers.discard(writer)
                writer.transport.abort()

    def _saw(self, packet: bytes, pair: Pair) -> None:
        """A packet is on its way to the server."""

    def _is_lost(self, pair: Pair) -> bool:
        """Whether a packet from the server is lost, and the connection with it."""
        if not self.is_lossy:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._next()
        self.losses += 1
        return True


class AimedProxy(LossyProxy):
    """Loses the replies to packets in which a word stands, such as the digest of a script.

    Args:
        server: URL of the server.
        seed: Makes the moments repeatable.
        share: Of such packets whose replies are lost.
    """

    def __init__(self, server: str, *, seed: int, share: float = 0.5) -> None:
        super().__init__(server, seed=seed, mean=1)
        self._share = share
        self._aimed: set[Pair] = set()
        self.word = b""
        self.left = 0
        """Losses that are still to come."""

    def _saw(self, packet: bytes, pair: Pair) -> None:
        if self.left and self.word in packet and self._random.random() < self._share:
            self.left -= 1
            self._aimed.add(pair)

    def _is_lost(self, pair: Pair) -> bool:
        if pair not in self._aimed:
            return False
        self._aimed.discard(pair)
        self.losses += 1
        return True


@contextmanager
def lossy_proxy(server: str, *, seed: int, mean: int) -> Iterator[LossyProxy]:
    """A proxy that runs in a thread as long as the context; it loses nothing before `is_lossy` is set."""
    proxy = LossyProxy(server, seed=seed, mean=mean)
    with start_blocking_portal() as portal:
        portal.call(proxy.start)
        try:
            yield proxy
        finally:
            portal.call(proxy.close)
