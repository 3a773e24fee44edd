"""Timers: what is to happen later in a shard: retries, deadlines, and forgetting runs whose retention is over."""

from __future__ import annotations

import asyncio
import logging

from datamesh.errors import DatameshError
from datamesh.store.protocol import ShardProtocol
from datamesh.supervise.loop import Loop

_log = logging.getLogger("datamesh.timers")
_SWEEP_SECONDS = 30.0
_SWEPT_AT_ONCE = 500
_PAUSE = 1.0


class Timers(Loop):
    """Promotes what is due, at the moment that it is.

    It knows when from three sides: what its own supervisor has scheduled, what the last call said, and the heartbeat,
    which tells of what others have.
    """

    def __init__(self, protocol: ShardProtocol) -> None:
        super().__init__("timers", self._keep, shard=protocol.keys.shard)
        self._protocol = protocol
        self._wake = asyncio.Event()
        self._at: float | None = None
        self._sweep_at = 0.0

    def start(self) -> None:
        self._sweep_at = asyncio.get_running_loop().time() + _SWEEP_SECONDS
        super().start()

    def due_in(self, ms: int) -> None:
        """Something is due in `ms` milliseconds; below 0: nothing is."""
        if ms < 0:
            return
        at = asyncio.get_running_loop().time() + ms / 1000
        if self._at is None or at < self._at:
            self._at = at
            self._wake.set()

    async def _keep(self) -> None:
        while True:
            with self.pulse.resting():
                await self._until_due()
            try:
                await self._act()
                self.pulse.beat()
            except DatameshError as error:
                _log.warning("timers wait: %s", error)
                self.pulse.failed(error)
                await asyncio.sleep(_PAUSE)

    async def _until_due(self) -> None:
        while True:
            until = self._sweep_at if self._at is None else min(self._at, self._sweep_at)
            self._wake.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _act(self) -> None:
        loop = asyncio.get_running_loop()
        if self._at is not None and loop.time() >= self._at:
            await self._promote()
        if loop.time() >= self._sweep_at:
            again = await self._protocol.sweep() == _SWEPT_AT_ONCE
            self._sweep_at = loop.time() + (0.0 if again else _SWEEP_SECONDS)

    async def _promote(self) -> None:
        at, self._at = self._at, None
        try:
            _, due_ms = await self._protocol.promote()
        except DatameshError:
            self._at = at
            raise
        # Where the clock of the server runs a little behind, the next call finds it due.
        self.due_in(max(1, due_ms) if due_ms >= 0 else -1)
