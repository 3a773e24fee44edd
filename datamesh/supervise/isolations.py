"""Isolations: the child processes of one service, few at a time, each for one value after another.

When services die for other reasons than a value, much of what they held is suspected for a while. A child for each
would overload the machine and make more of them die, so suspects share a few.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from datamesh.supervise.isolation import Isolation
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots

_MOST = 2
"""Children at once: the second goes on while the first hangs."""
_IDLE_SECONDS = 5.0


class Isolations:
    """Lends isolations, of the first task that asks to the first, and keeps them for a while."""

    def __init__(self, *, most: int = _MOST) -> None:
        self._places = asyncio.Semaphore(most)
        self._idle: deque[tuple[Served, Isolation]] = deque()
        self._closing: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def of(self, served: Served, service: str, slots: Slots) -> AsyncIterator[Isolation]:
        """Lend an isolation for values of one task; waits while all are in use, without the slot of who asks."""
        await self._place(slots)
        try:
            isolation = await self._take(served, service)
            try:
                yield isolation
            finally:
                self._idle.append((served, isolation))
                self._close_later()
        finally:
            self._places.release()

    async def _place(self, slots: Slots) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        slots.release()
        try:
            await self._places.acquire()
        except BaseException:
            slots.take()
            raise
        try:
            await slots.regain()
        except BaseException:
            self._places.release()
            raise

    async def _take(self, served: Served, service: str) -> Isolation:
        for found in self._idle:
            if found[0] is served:
                self._idle.remove(found)
                return found[1]
        while self._idle:
            # Its place is needed for another task.
            await self._idle.popleft()[1].aclose()
        return Isolation(served, max_value_bytes=served.max_value_bytes, service=service)

    def _close_later(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._closing = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        chore = asyncio.create_task(self.aclose(), name="datamesh-isolations")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def aclose(self) -> None:
        """End the children that are not in use."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        idle, self._idle = self._idle, deque()
        await asyncio.gather(*(isolation.aclose() for _, isolation in idle))
