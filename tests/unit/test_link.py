"""A connection that is shared: when it counts as dead, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio.connection import Connection

from datamesh.errors import StoreUnavailableError
from datamesh.store.blocked import BlockedRead
from datamesh.store.dial import dial
from datamesh.store.link import Link, LinkLost, ReplyError

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[dict[str, Any]]:
    """A server that says what the test wants; gives the options to reach it."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "lib_name": None}
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()


def answering(*, until: int, slowly: float = 0.0) -> Serve:
    """Answer so many commands with OK, the handshake among them, and then nothing any more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(until):
            arguments = int((await reader.readline())[1:])
            for _ in range(arguments):
                size = int((await reader.readline())[1:])
                while size + 2 > 0:
                    part = await reader.read(min(size + 2, 1 << 20))
                    size -= len(part)
                    await asyncio.sleep(slowly)
            writer.write(b"+OK\r\n")
        await asyncio.Event().wait()

    return serve


def link_to(options: dict[str, Any], *, seconds: float, blocking: bool = False) -> Link:
    return Link(lambda: dial(Connection, options, "the server"), timeout=seconds, blocking=blocking)


HANDSHAKE = 2
"""Commands that redis-py sends on a new connection: its name and its version."""


async def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(until=0)) as options:
        with pytest.raises(TimeoutError, match=r"the server gave no answer within 0\.1 s"):
            await dial(Connection, options, "the server", seconds=0.1)


async def test_a_server_that_falls_silent_is_left() -> None:
    async with serving(answering(until=HANDSHAKE + 1)) as options:
        link = link_to(options, seconds=0.2)
        assert await link.call("PING") == b"OK"
        waiting = [asyncio.create_task(link.call("PING")) for _ in range(3)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, LinkLost)
            assert "no answer within 0.2 s" in str(outcome)
        assert not link.is_connected
        await link.close()


async def test_it_is_left_also_when_nobody_waits_for_the_answer() -> None:
    """Callers with less patience than the link must not hide that the server is gone."""
    async with serving(answering(until=HANDSHAKE + 1)) as options:
        link = link_to(options, seconds=0.3)
        await link.call("PING")
        for _ in range(5):
            with suppress(TimeoutError, LinkLost):
                async with asyncio.timeout(0.1):
                    await link.call("PING")
        assert link.generation > 1 or not link.is_connected
        await link.close()


async def test_a_large_value_takes_its_time() -> None:
    async with serving(answering(until=HANDSHAKE + 1, slowly=0.002)) as options:
        link = link_to(options, seconds=0.5)
        began = asyncio.get_running_loop().time()
        assert await link.call("SET", "key", bytes(60 << 20)) == b"OK"
        assert asyncio.get_running_loop().time() - began > 0.5
        assert link.generation == 1
        await link.close()


async def test_a_read_that_redis_forgets_to_end_is_called_back() -> None:
    asked: list[tuple[Any, ...]] = []

    class Commands:
        generation = 1

        async def call(self, *args: Any, timeout: float | None = None) -> int:
            asked.append(args)
            return 0

    async with serving(answering(until=HANDSHAKE)) as options:
        link = link_to(options, seconds=5.0)
        read = BlockedRead(link, Commands())  # type: ignore[arg-type]
        link._blocking = False
        await link._ensure()
        link._client_id = 7
        with pytest.raises(LinkLost):
            await read.read("XREAD", block_ms=10)
        assert ("CLIENT", "UNBLOCK", 7) in asked
        await read.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("NOPERM this user has no permissions to run the 'xadd' command", "NOPERM"),
        (
            "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.",
            "NOPERM",
        ),
        ("ACL failure in script: User app has no permissions to run the 'xadd' command", "NOPERM"),
        ("MOVED 1 127.0.0.1:1", "MOVED"),
    ],
)
def test_codes_of_errors(message: str, code: str) -> None:
    assert ReplyError(message).code == code


async def test_options_that_cannot_be_used() -> None:
    with pytest.raises(StoreUnavailableError, match="Check the options"):
        await dial(
            Connection, {"db": "first", "host": "127.0.0.1", "port": 1, "credential_provider": 1, "username": "u"}, "x"
        )
