"""Sending: what a delivery has to say before its end, one call at a time, and who has to wait for it.

A generator may be a little ahead of what is sent. When a task that it feeds has more open values than it should, the
generator is suspended and its slot is free for others, until the news say that there is room again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from datamesh.errors import DatameshError, StoreError
from datamesh.store.frames import Settlement, Status
from datamesh.store.link import LinkLost
from datamesh.store.protocol import Settled, ShardProtocol
from datamesh.store.room import Room
from datamesh.supervise.emitter import Emitter
from datamesh.supervise.progress import Progress
from datamesh.supervise.slots import Slots
from datamesh.supervise.thread_feed import Pair

_log = logging.getLogger("datamesh.delivery")
_PAUSE = 0.5
_ROOM = 1024
"""Values that a generator may be ahead of what is sent."""

T = TypeVar("T")
Settle = Callable[[Settlement], "asyncio.Future[Settled]"]


class Sending:
    """Sends the outcomes of one delivery while it goes on.

    Args:
        progress: Has what is to be sent.
        protocol: Of its shard.
        settle: Sends a settlement.
        slots: One of them is given up while the delivery waits for room.
        room: Of its shard.
        stopped: Called when nothing that the delivery gives would count any more.
    """

    def __init__(
        self, progress: Progress, protocol: ShardProtocol, *, settle: Settle, slots: Slots, room: Room,
        stopped: Callable[[], None],
    ) -> None:  # fmt: skip
        self.status = Status.OK
        self._progress = progress
        self._protocol = protocol
        self._settle = settle
        self._slots = slots
        self._store_room = room
        self._stopped = stopped
        self._flushing: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_checking = self._is_full = self._is_ending = False

    @property
    def _delivery_id(self) -> str:
        return self._progress.delivery.id

    def accept(self, emitter: Emitter, pairs: list[Pair]) -> asyncio.Future[None] | None:
        """Take what a generator yielded, and send it as soon as the generator pauses.

        Returns:
            What the generator has to wait for before it goes on, if anything.

        Raises:
            DatameshError: What it yielded before cannot be sent.
        """
        if emitter.error is not None:
            raise emitter.error
        for name, value in pairs:
            emitter.add(name, value)
        if not self._is_checking and (self._flushing is None or self._flushing.done()):
            self._is_checking = True
            asyncio.get_running_loop().call_soon(self._check)
        if emitter.count < _ROOM and not self._is_full:
            return None
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def _check(self) -> None:
        self._is_checking = False
        self.send_early()

    def send_early(self) -> None:
        """Send what there is, without waiting for the end of the delivery."""
        if (self._flushing is None or self._flushing.done()) and self._progress.is_dirty and self._progress.left:
            self._flushing = asyncio.create_task(self._flush(), name="datamesh-flush")

    async def checkpoint(self, emitter: Emitter, state: bytes) -> None:
        """Keep `state` with what was yielded so far; returns when both are kept."""
        if emitter.checkpoint(state):
            while emitter.is_dirty and self.status is Status.OK:
                self.send_early()
                if self._flushing is not None:
                    await asyncio.wait([self._flushing])

    async def mark(self) -> None:
        """Have everything that is known by now kept with the delivery, whether there is something to send or not."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._send_part()

    async def end(self) -> Status:
        """Send the last of it: the delivery ends with this."""
        self._is_ending = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self.status is Status.FENCED:
            return self.status
        settlement, blobs = self._progress.settlement(final=True)
        if blobs and not await self._keep(blobs):
            settlement = Settlement(self._progress.delivery)
        self.status = (await self._settle(settlement)).status
        return self.status

    def stop(self) -> None:
        """Nobody waits for room any more."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat something safe to repeat until the store is back; user code has nothing to do with its absence."""
        while True:
            try:
                return await attempt()
            except (StoreError, LinkLost) as error:
                _log.warning("delivery %s waits for the store: %s", self._delivery_id, error)
                await asyncio.sleep(_PAUSE)

    async def _flush(self) -> None:
        try:
            while self._progress.is_dirty and self.status is Status.OK:
                await self._send_part()
                if self._is_full and not self._is_ending:
                    await self._wait_for_room()
        except DatameshError as error:
            _log.error("delivery %s cannot go on: %s", self._delivery_id, error)
            self.status = Status.FENCED
        finally:
            self._is_full = False
            self._make_room()
        if self.status is not Status.OK:
            self._stopped()

    async def _send_part(self) -> None:
        settlement, blobs = self._progress.settlement(final=False)
        self._make_room()
        if blobs and not await self._keep(blobs):
            self.status = Status.GONE
            return
        settled = await self._settle(settlement)
        self._is_full = settled.is_full
        if settled.status is not Status.ALREADY:
            self.status = settled.status

    async def _keep(self, blobs: dict[str, bytes]) -> bool:
        run_id = self._progress.delivery.run_id
        return await self.patiently(lambda: self._protocol.put_blobs(run_id, blobs))

    async def _wait_for_room(self) -> None:
        """Wait without a slot: those who make room may need it."""
        run_id = self._progress.delivery.run_id
        self._waiting = asyncio.create_task(self._room_of(run_id), name="datamesh-room")
        self._slots.release()
        try:
            await asyncio.wait([self._waiting])
        finally:
            self._waiting.cancel()
            self._waiting = None
            await self._slots.regain()
        self._is_full = False
        self._make_room()

    async def _room_of(self, run_id: str) -> None:
        await self.patiently(lambda: self._store_room.wait(run_id))

    def _make_room(self) -> None:
        if not self._is_full and self._room is not None and not self._room.done():
            self._room.set_result(None)
