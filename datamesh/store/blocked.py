"""BlockedRead: a read that waits at the server, and can be called back.

A blocking read must not be cancelled: the server may have handed out an entry whose reply nobody reads any more. So it
is left to run out, or the server is asked to end it, and its reply is always read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from datamesh.errors import StoreError
from datamesh.store.connect import Endpoint
from datamesh.store.epoch import Epoch
from datamesh.store.link import Caller, LinkLost, Reply, ReplyError

BLOCK_MS = 2000
"""How long a read waits at most. A server that died unheard is noticed one margin later."""
_MARGIN = 3.0
"""Seconds beyond the block time after which a silent connection counts as dead."""
_OVERDUE = 1.0
"""Seconds beyond it after which the read is called back: Redis starts to count anew when others take the entry."""
_RETRY = 0.001
_ELSEWHERE = frozenset({"MOVED", "ASK", "READONLY", "UNBLOCKED", "CLUSTERDOWN", "MASTERDOWN", "LOADING"})
"""What says that another server may be in charge now."""


class BlockedRead:
    """One connection for blocking reads, one at a time.

    Args:
        link: The connection.
        commands: Another one to the same server, to call reads back.
        endpoint: Told when the server is not in charge any more.
        epoch: Looked at after the connection, or what was waited for, went away.
    """

    def __init__(
        self, link: Caller, commands: Caller, *, endpoint: Endpoint | None = None, epoch: Epoch | None = None
    ) -> None:
        self._link = link
        self._commands = commands
        self._endpoint = endpoint
        self._epoch = epoch
        self._is_in_doubt = False
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
            LinkLost: The connection went away, or its server is not in charge any more.
            ReplyError: The server refused the command.
        """
        if self._is_in_doubt and self._epoch is not None:
            self._is_in_doubt = False
            await self._epoch.look()
        if self._called_back:
            self._called_back = False
            return None
        try:
            return await self._read(args, block_ms / 1000)
        except LinkLost:
            self._is_in_doubt = True
            await self._find_out()
            raise
        except ReplyError as error:
            if error.code in _ELSEWHERE:
                await self._link.close()
                await self._find_out()
            if self._epoch is not None:
                await self._epoch.look()
            if error.code in _ELSEWHERE:
                raise LinkLost(str(error)) from error
            raise

    async def _read(self, args: tuple[bytes | str | int | float, ...], seconds: float) -> Reply:
        overdue = asyncio.get_running_loop().call_later(seconds + _OVERDUE, self.wake)
        self._waiting = True
        self._returned.clear()
        try:
            return await self._link.call(*args, timeout=seconds + _MARGIN)
        finally:
            overdue.cancel()
            self._waiting = False
            self._called_back = False
            self._returned.set()

    async def _find_out(self) -> None:
        """Learn which server is in charge; where nobody knows now, the next read asks again."""
        if self._endpoint is not None:
            with suppress(LinkLost, StoreError):
                await self._endpoint.moved()

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
