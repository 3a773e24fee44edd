"""Intake: takes entries from the work streams of a shard, never more than there are free slots.

One blocking read waits on all streams, and brings at most a few entries from each. Where entries have piled up, or
where fewer slots are free than there are streams, a script with an exact budget for all streams together takes them
instead.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datamesh.errors import StoreError
from datamesh.store.blocked import BLOCK_MS, BlockedRead
from datamesh.store.frames import Delivery, delivery_of
from datamesh.store.keys import GROUP, Level
from datamesh.store.link import LinkLost, ReplyError
from datamesh.store.protocol import ShardProtocol
from datamesh.supervise.health import Pulse
from datamesh.supervise.loop import problem_of
from datamesh.supervise.slots import Slots

_log = logging.getLogger("datamesh.intake")
_MOST_AT_ONCE = 32
_MOST_FROM_EACH = 4
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_CHANCE_SHARE = 0.2


class Intake:
    """Reads the work streams of one shard for one member."""

    def __init__(
        self,
        protocol: ShardProtocol,
        blocked: BlockedRead,
        *,
        slots: Slots,
        works: Sequence[str],
        member: Callable[[], str],
        most: Callable[[str], int],
        ready: Callable[[], int],
        deliver: Callable[[str, Delivery], None],
        give_back: Callable[[str, Delivery], None],
        held: Callable[[str, str], bool],
        fenced: Callable[[str], None],
    ) -> None:
        self._protocol = protocol
        self._blocked = blocked
        self._slots = slots
        self._works = list(works)
        self._member = member
        self._most = most
        self._ready = ready
        self._deliver = deliver
        self._give_back = give_back
        self._held = held
        self._generation = (protocol.link.generation, blocked.generation)
        self._fenced = fenced
        self._is_stopping = False
        self._is_behind = True
        self._is_idle = False
        self._pause = _PAUSE
        self._room, self._on = asyncio.Event(), asyncio.Event()
        self._giving_way = 0
        self._left_out: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse("intake", shard=protocol.keys.shard)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="datamesh-intake")

    def problem(self) -> BaseException | None:
        """Why it takes nothing any more though it should."""
        return None if self._is_stopping else problem_of(self._task)

    def restart(self) -> None:
        """Begin again, with what had been handed out and was not delivered."""
        self._generation = (-1, -1)
        self.start()

    async def stop(self) -> None:
        """Take nothing more; an entry that is on its way is still delivered."""
        self._is_stopping = True
        self._room.set()
        self._on.set()
        self._blocked.wake()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=BLOCK_MS / 1000 + 1)

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Take nothing while this lasts: what others had begun gets the slots."""
        self._giving_way += 1
        try:
            yield
        finally:
            self._giving_way -= 1
            if not self._giving_way:
                self._on.set()

    def room_made(self) -> None:
        """A task that had as many invocations as it may have can take one more."""
        self._room.set()
        if any(self._most(work) > 0 for work in self._left_out):
            self._left_out = []
            self._blocked.wake()

    async def close(self) -> None:
        """Stop at once; what was on its way is left to others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._is_stopping:
            with self.pulse.resting():
                await self._slots.wait_free()
                if self._giving_way:
                    self._on.clear()
                    await self._on.wait()
                    continue
            try:
                await self._take()
                self.pulse.beat()
                self._pause = _PAUSE
            except (LinkLost, StoreError, ReplyError) as error:
                await self._mend(error)
            except Exception:
                # Whatever it is, a supervisor that looks alive and takes nothing would be worse.
                _log.exception("an entry could not be taken")
                await self._rest()

    async def _take(self) -> None:
        member = self._member()
        await self._recover(member)
        taken: list[Delivery] | None = []
        if self._is_behind or (self._budget < len(self._works) and not self._is_idle):
            taken = await self._take_now(member)
        if taken is None:
            self._fenced(member)
            await asyncio.sleep(_PAUSE)
        elif not taken and not self._is_stopping:
            taken = await self._take_later(member)
        for delivery in taken or ():
            self._accept(member, delivery)
        if taken:
            await asyncio.sleep(0)

    @property
    def _budget(self) -> int:
        """How many entries may be taken now."""
        return min(self._slots.free, _MOST_AT_ONCE - self._ready())

    async def _recover(self, member: str) -> None:
        """After a connection was lost, deliver what was handed out to us in a reply that we never read."""
        generation = (self._protocol.link.generation, self._blocked.generation)
        if any(old not in (0, new) for old, new in zip(self._generation, generation, strict=True)):
            for delivery in await self._protocol.recover(member, works=self._works) or ():
                if not self._held(delivery.work, delivery.entry_id):
                    self._accept(member, delivery)
        self._generation = generation

    async def _take_now(self, member: str) -> list[Delivery] | None:
        budget = self._budget
        if budget <= 0:
            await asyncio.sleep(0)
            return []
        works = self._ordered()
        taken = await self._protocol.take(member, most=budget, works=works, each=[self._most(work) for work in works])
        self._is_behind = bool(taken)
        return taken

    async def _take_later(self, member: str) -> list[Delivery]:
        self._room.clear()
        works = [work for work in self._works if self._most(work) > 0]
        if not works:
            with self.pulse.resting():
                await self._room.wait()
        if not works or not self._slots.free:
            return []
        count = max(1, min(_MOST_FROM_EACH, self._budget // len(works), *map(self._most, works)))
        self._left_out = [work for work in self._works if work not in works]
        try:
            reply = await self._blocked.read(
                "XREADGROUP", "GROUP", GROUP, member, "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", *works,
                *([">"] * len(works)), block_ms=BLOCK_MS,
            )  # fmt: skip
        finally:
            self._left_out = []
        self._is_behind = any(len(rows) >= count for _, rows in reply or ())
        self._is_idle = not reply
        return [delivery_of(work.decode(), entry, fields) for work, rows in reply or () for entry, fields in rows]

    def _ordered(self) -> list[str]:
        """Streams in the order in which to drain them: by priority, now and then by chance, so that none starves."""
        works = self._works[:]
        random.shuffle(works)
        if random.random() >= _CHANCE_SHARE:
            works.sort(key=_priority)
        return works

    def _accept(self, member: str, delivery: Delivery) -> None:
        if member == self._member() and not self._is_stopping and self._slots.try_acquire():
            self._deliver(member, delivery)
        else:
            self._give_back(member, delivery)

    async def _mend(self, error: LinkLost | StoreError | ReplyError) -> None:
        """Wait a little longer each time; a group that is gone is made again, by joining anew."""
        _log.warning("cannot take work: %s", error)
        if isinstance(error, ReplyError) and error.code == "NOGROUP":
            self._fenced(self._member())
        await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause * (0.5 + random.random()))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def _priority(work: str) -> int:
    if work.endswith(Level.HIGH):
        return 0
    return 2 if work.endswith(Level.LOW) else 1
