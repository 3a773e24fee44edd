"""MemoryLink: commands to a Redis that lives in this process.

Such a server keeps reading for a caller that was cancelled while it blocked, and so swallows the entry that comes next.
Blocking reads are therefore made of short ones, and wait in between for the next write.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ResponseError

from datamesh.store.link import Caller, Reply, ReplyError

_PAUSE = 0.002


class MemoryLink:
    """Calls a fakeredis client; blocking reads poll."""

    generation = 1

    def __init__(self, client: Any) -> None:
        self._client = client
        self._unblocked = asyncio.Event()

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        if "BLOCK" not in args:
            return await self._send(args)
        at = args.index("BLOCK")
        until = asyncio.get_running_loop().time() + int(args[at + 1]) / 1000
        self._unblocked.clear()
        while True:
            reply = await self._send(args[:at] + args[at + 2 :])
            if reply or self._unblocked.is_set() or asyncio.get_running_loop().time() >= until:
                return reply
            await asyncio.sleep(_PAUSE)

    async def _send(self, args: tuple[bytes | str | int | float, ...]) -> Reply:
        # The client would parse replies of the commands that it knows; a name of its own for them keeps them as they
        # are.
        connection = await self._client.connection_pool.get_connection()
        try:
            await connection.send_command(*args)
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            raise ReplyError(_with_code(error)) from error
        finally:
            await self._client.connection_pool.release(connection)

    async def unblock(self, by: Caller) -> bool:
        self._unblocked.set()
        return True

    async def close(self) -> None:
        self._unblocked.set()


def _with_code(error: ResponseError) -> str:
    text = str(error)
    return text if type(error) is ResponseError else f"{type(error).__name__.removesuffix('Error').upper()} {text}"
