"""Slots: how many invocations may run at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A counter with waiters, of one event loop. Work that was taken already goes before work that is to be taken."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self._kept: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """Slots that nobody uses and nobody waits for."""
        return max(0, self.total - self.used - len(self._waiters))

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        if self.used >= self.total or self._waiters:
            return False
        self.used += 1
        return True

    async def acquire(self) -> None:
        """Take a slot, waiting for one."""
        if self.try_acquire():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                self._waiters.remove(waiter)
            raise

    async def regain(self) -> None:
        """Take back a slot that was given up for a while; where the wait is cut short, even if that is one too many."""
        try:
            await self.acquire()
        except asyncio.CancelledError:
            self.take()
            raise

    def take(self) -> None:
        """Take a slot even if that is one too many: for an entry that arrived unasked."""
        self.used += 1

    def keep_until(self, ended: asyncio.Event) -> None:
        """Keep a slot for something that cannot be stopped, until it has ended by itself."""
        self.take()
        keeping = asyncio.create_task(self._keep(ended), name="datamesh-kept-slot")
        self._kept.add(keeping)
        keeping.add_done_callback(self._kept.discard)

    async def _keep(self, ended: asyncio.Event) -> None:
        try:
            await ended.wait()
        finally:
            self.release()

    @property
    def kept(self) -> int:
        """Slots of calls that were given up and still run."""
        return len(self._kept)

    async def close(self) -> None:
        """Wait no more for what cannot be stopped."""
        for keeping in list(self._kept):
            keeping.cancel()
        await asyncio.gather(*self._kept, return_exceptions=True)

    def release(self) -> None:
        """Give a slot back, or on to whoever waits longest."""
        if self.used <= self.total:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self.used -= 1
        self._freed.set()
        for watcher in self._watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called whenever a slot is given back."""
        self._watchers.append(watcher)

    async def wait_free(self) -> None:
        """Wait until there is a free slot; it is not taken."""
        while not self.free:
            self._freed.clear()
            await self._freed.wait()
