"""BlockedRead: a read that waits at the server, and can be called back.

A blocking read must not be cancelled: the server may have handed out an entry whose reply nobody reads any more. So it
is left to run out, or the server is asked to end it, and its reply is always read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from datamesh.store.link import Caller, LinkLost, Reply, ReplyError

_MARGIN = 5.0
"""Seconds beyond the block time after which a silent connection counts as dead."""
_RETRY = 0.001


class BlockedRead:
    """One connection for blocking reads, one at a time."""

    def __init__(self, link: Caller, commands: Caller) -> None:
        self._link = link
        self._commands = commands
        self._waiting = False
        self._returned = asyncio.Event()
        self._waking: asyncio.Task[None] | None = None
        self._called_back = False

    @property
    def generation(self) -> int:
        """Of the link; a change means that a reply may have been lost."""
        return self._link.generation

    async def read(self, *args: bytes | str | int | float, block_ms: int) -> Reply:
        """Send a command that blocks for at most `block_ms` and read its reply.

        Raises:
            LinkLost: The connection went away.
            ReplyError: The server refused the command.
        """
        if self._called_back:
            self._called_back = False
            return None
        self._waiting = True
        self._returned.clear()
        try:
            return await self._link.call(*args, timeout=block_ms / 1000 + _MARGIN)
        finally:
            self._waiting = False
            self._called_back = False
            self._returned.set()

    def wake(self) -> None:
        """End the read that is under way, or the next one if none is."""
        self._called_back = True
        if self._waiting and (self._waking is None or self._waking.done()):
            self._waking = asyncio.get_running_loop().create_task(self._wake(), name="datamesh-wake")

    async def _wake(self) -> None:
        # The read may not have reached the server yet; then there is nothing to end, and it is asked again. What was
        # ended may be an earlier read whose reply was on its way, so only a read that has returned is the end of this.
        pause = _RETRY
        while self._waiting and self._called_back:
            with suppress(LinkLost, ReplyError):
                await self._link.unblock(self._commands)
            try:
                async with asyncio.timeout(pause):
                    await self._returned.wait()
                pause = _RETRY
            except TimeoutError:
                pause = min(2 * pause, 0.05)

    async def close(self) -> None:
        """Close the connection; a read under way fails."""
        if self._waking is not None:
            self._waking.cancel()
        await self._link.close()
