"""Tails: everybody in a process who waits for run streams of a shard, over one blocked connection.

A channel stands for one stream that somebody waits at. It keeps the entries that came lately, so that several readers
get them from one read, and a reader that comes back a moment later finds them. Who lags further behind reads by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque

from datamesh.errors import DataLossError, RunError, StoreError, UnknownRunError
from datamesh.model.cursor import entry_key
from datamesh.store.blocked import BLOCK_MS, BlockedRead
from datamesh.store.epoch import Epoch
from datamesh.store.frames import Entry, end_of, entries_of
from datamesh.store.link import LinkLost, ReplyError
from datamesh.store.protocol import ShardProtocol

_log = logging.getLogger("datamesh.store")
_COUNT = 64
_KEPT = 64
_UNREAD = 32
_LINGER = 2.0
_LINGER_ENDED = 0.2
_LOOK_AGAIN = 10.0
_PURGE = 0.2
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_STOPPED = "the supervisor has stopped"
_LOSS_SECONDS = 2.5
"""How often it is looked whether the shard still has its data; each look waits for a read to end."""


class _Channel:
    """The end of one stream, as far as this process has seen it."""

    __slots__ = ("has_ended", "last", "looked", "owner", "recent", "since", "unread", "used", "waiters")

    def __init__(self, after: str, owner: str) -> None:
        self.since = after
        """Every entry after this one, up to `last`, is in `recent`."""
        self.last = after
        self.owner = owner
        self.recent: deque[Entry] = deque()
        self.waiters: set[asyncio.Future[None]] = set()
        self.unread = 0
        self.has_ended = False
        self.used = self.looked = time.monotonic()

    def after(self, entry_id: str) -> list[Entry]:
        place = entry_key(entry_id)
        return [entry for entry in self.recent if entry_key(entry.entry_id) > place]

    def add(self, entries: list[Entry]) -> None:
        self.recent.extend(entries)
        self.last = entries[-1].entry_id
        self.has_ended = bool(end_of(entries[-1]))
        while len(self.recent) > _KEPT:
            self.since = self.recent.popleft().entry_id
        self.unread += len(entries)
        self.release(None)

    def release(self, error: Exception | None) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
        self.waiters.clear()

    def is_forgotten(self, now: float) -> bool:
        """Whether nobody has come for it for a while."""
        linger = _LINGER_ENDED if self.has_ended else _LINGER
        return not self.waiters and now - self.used >= linger

    def is_wanted(self, now: float) -> bool:
        """Whether it is worth reading on."""
        return bool(self.waiters) or (not self.has_ended and self.unread < _UNREAD and now - self.used < _LINGER)


class Tails:
    """Reads of the run streams of one shard.

    Args:
        protocol: Of the shard.
        blocked: For the one read that waits.
        epoch: Looked at while somebody waits, because a stream that was lost looks like one that is quiet.
    """

    def __init__(self, protocol: ShardProtocol, blocked: BlockedRead, epoch: Epoch | None = None) -> None:
        self._protocol = protocol
        self._blocked = blocked
        self._epoch = epoch
        self._is_lost = False
        self._is_closed = False
        if epoch is not None:
            epoch.listeners.append(self._lost)
        self._channels: dict[str, _Channel] = {}
        # Streams that have ended: their readers still come for what was read, but nobody reads on.
        self._ended: dict[str, _Channel] = {}
        self._purged = self._looked = 0.0
        self._watched: frozenset[str] = frozenset()
        self._loop_task: asyncio.Task[None] | None = None
        self._reading = False

    async def read(self, key: str, after: str, *, run_key: str = "") -> list[Entry]:
        """Wait for entries of a stream.

        Args:
            key: The stream; it need not exist yet.
            after: Id of an entry; "0" is before the first.
            run_key: The run it belongs to; if that goes while we wait, so does the hope for entries.

        Raises:
            UnknownRunError: The run is gone; its retention is over.
            DataLossError: The run is gone; Redis has lost it.
            StoreError: The store cannot be reached.
        """
        while True:
            channel = self._channels.get(key) or self._ended.get(key)
            if channel is None:
                channel = self._channels[key] = _Channel(after, run_key)
                if self._epoch is not None and self._epoch.has_lost:
                    await self._look_for(channel)
            channel.used = time.monotonic()
            if entry_key(after) < entry_key(channel.since):
                if found := await self.range(key, after):
                    return found
                await self._look_for(channel)
            channel.unread = 0
            if found := channel.after(after):
                return found
            await self._wait(key, channel)

    async def range(self, key: str, after: str, count: int = _COUNT) -> list[Entry]:
        """Read what there is after an entry, without waiting."""
        start = "-" if after == "0" else f"({after}"
        return entries_of(await self._protocol.command("XRANGE", key, start, "+", "COUNT", count))

    async def newest(self, key: str, count: int = 1) -> list[Entry]:
        """Read the newest entries of a stream, newest first."""
        return entries_of(await self._protocol.command("XREVRANGE", key, "+", "-", "COUNT", count))

    @property
    def reading(self) -> asyncio.Task[None] | None:
        """The task that reads for all who wait. If it breaks, they wait until somebody has it read on."""
        return self._loop_task

    def read_on(self) -> None:
        """Read for those who wait, in a new task."""
        self._loop_task = asyncio.create_task(self._run(), name="datamesh-tails")

    async def _wait(self, key: str, channel: _Channel) -> None:
        if self._is_closed:
            raise LinkLost(_STOPPED)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.waiters.add(waiter)
        if self._loop_task is None or self._loop_task.done():
            self._tell_what_broke()
            self.read_on()
        elif self._reading and key not in self._watched:
            self._blocked.wake()
        try:
            await waiter
        finally:
            channel.waiters.discard(waiter)

    def _tell_what_broke(self) -> None:
        task = self._loop_task
        if task is not None and not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the loop of the readers broke and is begun again", exc_info=error)

    async def _run(self) -> None:
        """Read until nobody has waited for a while."""
        pause = _PAUSE
        while wanted := self._wanted():
            self._watched = frozenset(wanted)
            try:
                await self._read_once(wanted)
                pause = _PAUSE
            except (LinkLost, ReplyError, StoreError) as error:
                if isinstance(error, StoreError):
                    for channel in wanted.values():
                        channel.release(error)
                await asyncio.sleep(pause * (0.5 + random.random()))
                pause = min(2 * pause, _LONGEST_PAUSE)
            if self._epoch is not None:
                await self._epoch.look(every=_LOSS_SECONDS)
            await self._look()

    def _wanted(self) -> dict[str, _Channel]:
        now = time.monotonic()
        if now - self._purged > _PURGE:
            self._purged = now
            self._channels = {key: channel for key, channel in self._channels.items() if not channel.is_forgotten(now)}
            self._ended = {key: channel for key, channel in self._ended.items() if not channel.is_forgotten(now)}
        return {key: channel for key, channel in self._channels.items() if channel.is_wanted(now)}

    async def _read_once(self, wanted: dict[str, _Channel]) -> None:
        self._reading = True
        try:
            reply = await self._blocked.read(
                "XREAD", "COUNT", _COUNT, "BLOCK", BLOCK_MS, "STREAMS", *wanted, *(c.last for c in wanted.values()),
                block_ms=BLOCK_MS,
            )  # fmt: skip
        finally:
            self._reading = False
        for key, rows in reply or ():
            channel = self._channels.get(key.decode())
            if channel is not None and rows:
                channel.add(entries_of(rows))
                if channel.has_ended:
                    self._ended[key.decode()] = self._channels.pop(key.decode())

    async def _look(self) -> None:
        """Let go of those who wait for a run that is gone."""
        now = time.monotonic()
        is_lost, self._is_lost = self._is_lost, False
        if now - self._looked < _PURGE and not is_lost:
            return
        self._looked = now
        for channel in list(self._channels.values()):
            is_due = is_lost or now - max(channel.looked, channel.used) >= _LOOK_AGAIN
            if not channel.waiters or not channel.owner or not is_due:
                continue
            channel.looked = now
            try:
                await self._look_for(channel)
            except (RunError, DataLossError) as error:
                channel.release(error)
            except StoreError:
                self._is_lost = self._is_lost or is_lost

    async def _look_for(self, channel: _Channel) -> None:
        if channel.owner and not await self._protocol.command("EXISTS", channel.owner):
            run_id = channel.owner.rpartition("run:")[2]
            raise UnknownRunError(run_id=run_id) if self._epoch is None else await self._epoch.missing(run_id)

    def _lost(self) -> None:
        """The shard has lost its data: look at once for whom nothing will ever come."""
        self._is_lost = True
        if self._reading:
            self._blocked.wake()

    async def close(self) -> None:
        """Stop reading; those who wait get an error."""
        self._is_closed = True
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        for channel in self._channels.values():
            channel.release(LinkLost(_STOPPED))
        self._channels.clear()
        self._ended.clear()
        await self._blocked.close()
