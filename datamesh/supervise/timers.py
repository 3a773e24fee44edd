"""Timers: what is to happen later in a shard: retries, deadlines, and forgetting runs whose retention is over."""

from __future__ import annotations

import asyncio
import logging

from datamesh.errors import DatameshError
from datamesh.store.protocol import ShardProtocol

_log = logging.getLogger("datamesh.timers")
_SWEEP_SECONDS = 30.0
_PAUSE = 1.0


class Timers:
    """Promotes what is due, at the moment that it is.

    It knows when from three sides: what its own supervisor has scheduled, what the last call said, and the heartbeat,
    which tells of what others have.
    """

    def __init__(self, protocol: ShardProtocol) -> None:
        self._protocol = protocol
        self._wake = asyncio.Event()
        self._at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="datamesh-timers")

    def due_in(self, ms: int) -> None:
        """Something is due in `ms` milliseconds; below 0: nothing is."""
        if ms < 0:
            return
        at = asyncio.get_running_loop().time() + ms / 1000
        if self._at is None or at < self._at:
            self._at = at
            self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + _SWEEP_SECONDS
        while True:
            until = sweep_at if self._at is None else min(self._at, sweep_at)
            self._wake.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
                continue
            except TimeoutError:
                pass_due = self._at is not None and loop.time() >= self._at
            try:
                if pass_due:
                    await self._promote()
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + (0.0 if await self._protocol.sweep() == 500 else _SWEEP_SECONDS)
            except DatameshError as error:
                _log.warning("timers wait: %s", error)
                await asyncio.sleep(_PAUSE)

    async def _promote(self) -> None:
        self._at = None
        _, due_ms = await self._protocol.promote()
        # Where the clock of the server runs a little behind, the next call finds it due.
        self.due_in(max(1, due_ms) if due_ms >= 0 else -1)
